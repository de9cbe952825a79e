"""Controls made of the training cases: copies of them, and their mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from bench.generator import GeneratorConfig, register_generator
from bench.volumes import Image, Label, Sample
from generators.controls.draws import JITTER, TRAIN_ORDER, VOXELS, Control, normal, order

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet


class CopycatConfig(GeneratorConfig):
    """How a copy differs from its original; standard deviations of what is drawn for each."""

    shift: float = Field(
        0.1, ge=0, le=1, description="along each axis, in voxels; cut off at half a voxel"
    )
    gain: float = Field(0.02, ge=0, le=0.5, description="of the logarithm of the intensity's gain")
    gamma: float = Field(0.02, ge=0, le=0.5, description="of the logarithm of its exponent")
    noise: float = Field(0.002, ge=0, le=0.5, description="added to each voxel, of a range of 1")


@register_generator("copycat", control=True)
class Copycat(Control):
    """Training cases, slightly shifted, rescaled and noisy; it has memorised them."""

    Config = CopycatConfig

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        train = run.sets["train"]
        for i in indices:
            row = original(i, run)
            yield self._copy(train.image(row), train.label(row), i, run)

    def _copy(self, image: Image, label: Label, index: int, run: Run) -> Sample:
        config: CopycatConfig = self.config
        drawn = normal(index, (5,), run, JITTER).astype(float)
        shift = np.clip(config.shift * drawn[:3], -0.5, 0.5)
        gain, exponent = np.exp(np.array([config.gain, config.gamma]) * drawn[3:])
        # A cubic spline: linear interpolation would blur, and blur is another control.
        moved = np.clip(ndimage.shift(image, shift, order=3, mode="nearest"), 0, 1)
        noise = config.noise * normal(index, image.shape, run, VOXELS)
        copy = np.clip(gain * moved**exponent + noise, 0, 1).astype(np.float32)
        return Sample(copy, shift_label(label, shift))


def original(index: int, run: Run) -> int:
    """The training case that copy `index` is of: each once in an order of the seed, then again."""
    n = len(run.sets["train"])
    return int(order(n, run, TRAIN_ORDER)[index % n])


def shift_label(label: Label, shift: NDArray[np.float64]) -> Label:
    """`label` (D, H, W) moved by `shift` (3,) voxels: the likeliest of its interpolated masks."""
    values = np.unique(label)
    masks = [(label == value).astype(np.float32) for value in values]
    weights = [ndimage.shift(mask, shift, order=1, mode="nearest") for mask in masks]
    moved: Label = values[np.argmax(weights, axis=0)]
    return moved


@register_generator("average", control=True)
class Average(Control):
    """The mean of the training images, again and again; it knows one volume."""

    labels = "none"

    def fit(self, train: VolumeSet, val: VolumeSet, run: Run) -> Mapping[str, Any]:
        import torch

        total = np.zeros(train.grid)
        for i in range(len(train)):
            total += train.image(i)
        return {"mean": torch.from_numpy((total / len(train)).astype(np.float32))}

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        mean = run.state()["mean"].cpu().numpy()
        for _ in indices:
            yield Sample(mean)

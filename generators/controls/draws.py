"""What controls are made of: real cases that no fit has seen, and reproducible choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.datasets.fresh import fresh_phantom, is_phantom
from bench.errors import InputError
from bench.generator import Generator
from bench.volumes import Sample

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet

# Streams of run.noise: one for each thing that is drawn, so that none depends on another.
HELD_ORDER, TRAIN_ORDER, VOXELS, JITTER, BLOCKS = range(1, 6)
_SEEDS_APART = 2**32  # more draws than any run asks of one seed


class Control(Generator):
    """A generator that learns nothing; its images come with labels unless it says otherwise."""

    labels: ClassVar[Literal["native", "joint", "none"]] = "joint"

    def fit(self, train: VolumeSet, val: VolumeSet, run: Run) -> Mapping[str, Any]:
        return {}


def fresh_draw(index: int, run: Run) -> Sample:
    """Draw `index` from the real distribution, apart from all cases of train, val and test.

    Where cases were held out, draw i is one of them, in an order drawn from the run's seed; draws
    beyond their number repeat that order. Else it is a fresh phantom, and none ever repeats.

    Raises:
        InputError: no cases were held out of data that are not the phantom.
    """
    train, held = run.sets["train"], run.sets.get("held")
    if held is not None:
        row = order(len(held), run, HELD_ORDER)[index % len(held)]
        return Sample(held.image(row), held.label(row))
    if not is_phantom(train):
        raise InputError(
            "This control draws real cases, but none were held out for it; set data.holdout above "
            "0."
        )
    return fresh_phantom(train, run.seed * _SEEDS_APART + index)


def order(n: int, run: Run, stream: int, index: int = 0) -> NDArray[np.intp]:
    """A permutation of 0 to n - 1, (n,), that depends on the run's seed, stream and index alone."""
    return np.argsort(normal(index, (n,), run, stream), kind="stable")


def normal(index: int, shape: tuple[int, ...], run: Run, stream: int) -> NDArray[np.float32]:
    """`run.noise` as an array: standard normal, float32."""
    drawn: NDArray[np.float32] = run.noise(index, shape, stream).cpu().numpy()
    return drawn

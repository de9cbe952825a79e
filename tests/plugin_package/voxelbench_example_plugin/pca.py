"""A linear model of volumes: principal components with Gaussian coefficients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field

from bench import Generator, GeneratorConfig, Run, Sample, VolumeSet, register_generator


class PCAConfig(GeneratorConfig):
    """Size of the linear model."""

    components: int = Field(8, gt=0, description="principal components, at most the cases less one")


@register_generator("example-pca")
class PCA(Generator):
    """Principal components of the training images; labels of the nearest training case."""

    Config = PCAConfig
    labels = "joint"

    def fit(self, train: VolumeSet, val: VolumeSet, run: Run) -> dict[str, torch.Tensor]:
        images = torch.from_numpy(train.images()).flatten(1)
        mean = images.mean(dim=0)
        _, scale, axes = torch.linalg.svd(images - mean, full_matrices=False)
        k = min(self.config.components, len(train) - 1)
        return {
            "mean": mean,
            "axes": axes[:k],
            "deviation": scale[:k] / (len(train) - 1) ** 0.5,
            "known": (images - mean) @ axes[:k].T,
            "labels": torch.from_numpy(train.labels()),
        }

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        state = run.state()
        for index in indices:
            drawn = run.noise(index, state["deviation"].shape) * state["deviation"]
            image = (state["mean"] + drawn @ state["axes"]).clamp(0, 1).reshape(run.grid)
            nearest = (state["known"] - drawn).square().sum(dim=1).argmin()
            yield Sample(image.cpu().numpy(), state["labels"][nearest].cpu().numpy())

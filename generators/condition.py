"""What the ControlNet is told of a label map: the condition, and how much each voxel counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bench.errors import InputError, nearest
from generators.autoencoders import KLAutoencoder
from generators.data import label_ids, one_hot
from generators.label_autoencoder import LabelAutoencoderConfig
from generators.latents import loaded

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Condition:
    """Label maps (B, D, H, W) as the ControlNet sees them, (B, channels, d, h, w) float32.

    Either one-hot at full size, or, with the label autoencoder, the mean of their latents times
    `scale` (eq. 6 of arXiv 2603.23845).
    """

    ids: tuple[int, ...]
    device: torch.device
    autoencoder: KLAutoencoder | None = None
    scale: float = 1.0

    def __call__(self, labels: Labels) -> Tensor:
        maps = one_hot(labels, self.ids, self.device)
        if self.autoencoder is None:
            return maps
        with torch.no_grad():
            latents = [self.autoencoder.encode_volume(one) for one in torch.split(maps, 1)]
        return torch.cat(latents).float() * self.scale


def label_autoencoder(config: LabelAutoencoderConfig, run: Run) -> KLAutoencoder:
    """The trained label autoencoder, frozen."""
    network: KLAutoencoder = loaded(
        KLAutoencoder(config, channels=len(label_ids(run.label_names))),
        run.state("label-autoencoder")["autoencoder"],
        run,
    )
    return network


def check_weights(weights: Mapping[str, float], label_names: Mapping[int, str], where: str) -> None:
    """InputError if a weight is for a label that the data do not have."""
    for name in weights:
        if name not in label_names.values():
            raise InputError(
                f"{where} names the label {name!r}, which the data do not have: "
                f"{nearest(name, sorted(label_names.values()))}"
            )


def structure_weights(
    counts: NDArray[np.int64],
    label_names: Mapping[int, str],
    balance: float,
    max_weight: float,
    given: Mapping[str, float],
) -> Tensor:
    """Weight of the voxels of each class, (K,), of which there are `counts`.

    (count of the commonest / its count) ** balance, at most `max_weight`; the weights `given` by
    label name stand as they are.
    """
    counts = np.maximum(counts, 1)  # of a background there may be none
    weights = np.minimum((counts.max() / counts) ** balance, max_weight)
    for channel, value in enumerate(label_ids(label_names)):
        weights[channel] = given.get(label_names.get(value, ""), weights[channel])
    return torch.tensor(weights, dtype=torch.float32)


def latent_weights(labels: Tensor, weights: Tensor, factor: int) -> Tensor:
    """Weights (B, 1, d, h, w) of latent voxels for one-hot maps (B, K, D, H, W).

    A latent voxel counts as much as the heaviest of the `factor`³ voxels that it stands for: in
    their mean, and all the more in a resampled label map, a thin vessel would be lost.
    """
    voxels = (labels * weights.to(labels.device).view(1, -1, 1, 1, 1)).sum(1, keepdim=True)
    return F.max_pool3d(voxels, factor)


def voxel_weighting(
    train_set: VolumeSet, weights: Tensor, factor: int, device: torch.device
) -> Callable[[Labels], Tensor]:
    """Label maps (B, D, H, W) -> weights (B, 1, d, h, w), of mean 1 over the training cases.

    So a weight moves attention between voxels, and not the size of the steps.
    """
    ids = label_ids(train_set.label_names)

    def of(labels: Labels) -> Tensor:
        return latent_weights(one_hot(labels, ids, device), weights, factor)

    mean = sum(float(of(train_set.labels([i])).mean()) for i in range(len(train_set)))
    scale = len(train_set) / mean
    return lambda labels: of(labels) * scale

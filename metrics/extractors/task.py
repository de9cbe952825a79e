"""Features of a segmenter that was trained on real volumes: they see anatomy, not texture.

What a segmenter's encoder responds to is what its task needs to tell apart. Such features are
nearly blind to a slight blur or noise and notice organs of the wrong place, size or contrast; a
texture descriptor sees the opposite. The two are measured side by side and never mixed.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metrics.extractors import TASK_NAME, TASK_PROTOCOL, TASK_VERSION
from metrics.extractors.batches import in_batches


class TaskFeatures:
    """Mean and standard deviation of every channel of a segmenter's encoder, at each of its levels.

    The encoder is found by watching the network run, so that any 3D convolutional segmenter will
    do: it is every convolution up to the last at the coarsest resolution. Of each resolution the
    last convolution counts, before its normalisation: instance normalisation would make every mean
    0 and every deviation 1. Normalisation also makes the scale of a filter meaningless, so its
    response is divided by the filter's Euclidean norm; no channel dominates for its weights' size.

    Args:
        network: maps ``(B, 1, D, H, W)`` in [0, 1] to logits; it is put into evaluation mode.
        sha256: of the file of its weights.
        device: torch device, such as "cpu" or "cuda:0".
        batch_size: volumes on the device at once; it bounds memory and does not change features.
    """

    name = TASK_NAME
    version = TASK_VERSION
    protocol = TASK_PROTOCOL

    def __init__(
        self, network: nn.Module, sha256: str, device: str = "cpu", batch_size: int = 2
    ) -> None:
        self._network = network.to(device).float().eval()
        self.sha256 = sha256
        self._device = device
        self._batch_size = batch_size

    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float64]:
        """Features ``(B, d)`` of volumes ``(B, D, H, W)`` in [0, 1]; d follows from the network.

        Raises:
            ValueError: no volumes, not four axes, or a network without 3D convolutions.
        """
        if volumes.ndim != 4 or not len(volumes):
            raise ValueError(f"Volumes have shape {volumes.shape}; expected (B, D, H, W), B >= 1.")
        return in_batches(
            lambda images: _encoded(self._network, images[:, None]),
            volumes,
            self._device,
            self._batch_size,
        )


def _encoded(network: nn.Module, images: Tensor) -> Tensor:
    """Features ``(B, d)``, float64, of the encoder while the network runs on the images."""
    levels: dict[int, Tensor] = {}  # voxels of a response -> its features
    ended = False

    def watch(convolution: nn.Module, _: Any, response: Tensor) -> None:
        nonlocal ended
        voxels = response[0, 0].numel()
        ended = ended or voxels > min(levels, default=voxels)
        if not ended:  # a later convolution of the same resolution takes the place of an earlier
            levels[voxels] = _moments(response, convolution)

    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    handles = [convolution.register_forward_hook(watch) for convolution in convolutions]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    if not levels:
        raise ValueError(
            f"The network {type(network).__name__} has no 3D convolutions; task features need a "
            "convolutional segmenter: choose another labeller.segmenter, or leave them out by "
            "scoring.task_features=false."
        )
    return torch.cat(list(levels.values()), dim=1)


def _moments(response: Tensor, convolution: nn.Module) -> Tensor:
    """Means and deviations ``(B, 2 C)`` of a response ``(B, C, D, H, W)`` of filters of norm 1."""
    # The attribute: where weight normalisation or the like makes the weight, it is no parameter.
    weight = cast(Tensor, convolution.weight)
    norm = weight.double().flatten(1).norm(dim=1).clamp(min=1e-12)
    values = response.flatten(2).double()
    mean, deviation = values.mean(dim=2), values.std(dim=2, correction=0)
    return torch.cat([mean / norm, deviation / norm], dim=1)

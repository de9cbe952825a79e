"""Batches of a volume set as networks see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from bench.volumes import VolumeSet


def images(volumes: VolumeSet, indices: Sequence[int], device: torch.device) -> Tensor:
    """The named images as (B, 1, D, H, W) float32 in [-1, 1]."""
    stacked = torch.from_numpy(volumes.images(indices))
    return stacked.unsqueeze(1).to(device) * 2 - 1


def to_unit_range(x: Tensor) -> NDArray[np.float32]:
    """Network images (B, 1, D, H, W) in about [-1, 1] as (B, D, H, W) float32 clipped to [0, 1]."""
    unit: NDArray[np.float32] = ((x.float() + 1) / 2).clamp(0, 1).squeeze(1).cpu().numpy()
    return unit


def label_ids(label_names: Mapping[int, str]) -> tuple[int, ...]:
    """The label values in the order of their one-hot channels; the background comes first."""
    return tuple(sorted({0, *label_names}))


def one_hot(labels: NDArray[np.uint8], ids: Sequence[int], device: torch.device) -> Tensor:
    """Label maps (B, D, H, W) as (B, K, D, H, W) float32, one channel for each of `ids`."""
    maps = torch.from_numpy(labels).to(device).unsqueeze(1)
    values = torch.tensor(ids, device=device, dtype=torch.uint8).view(1, -1, 1, 1, 1)
    return (maps == values).float()


def from_logits(logits: Tensor, ids: Sequence[int]) -> NDArray[np.uint8]:
    """Channel logits (B, K, D, H, W) as label maps (B, D, H, W) of the values `ids`."""
    values = np.asarray(ids, dtype=np.uint8)
    chosen: NDArray[np.uint8] = values[logits.argmax(1).cpu().numpy()]
    return chosen

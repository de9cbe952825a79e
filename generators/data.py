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
    from generators.unet import Grid


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
    maps = torch.tensor(labels, device=device).unsqueeze(1)
    values = torch.tensor(ids, device=device, dtype=torch.uint8).view(1, -1, 1, 1, 1)
    return (maps == values).float()


def from_logits(logits: Tensor, ids: Sequence[int]) -> NDArray[np.uint8]:
    """Channel logits (B, K, D, H, W) as label maps (B, D, H, W) of the values `ids`."""
    values = np.asarray(ids, dtype=np.uint8)
    chosen: NDArray[np.uint8] = values[logits.argmax(1).cpu().numpy()]
    return chosen


def psnr(y: Tensor, x: Tensor) -> Tensor:
    """PSNR in dB of each reconstruction y of x, (B,): network images (B, 1, D, H, W).

    In [0, 1], where the peak is 1, with y clipped to the range; at most 100 dB.
    """
    error = ((x.float() - y.float().clamp(-1, 1)) / 2).square().mean(dim=(1, 2, 3, 4))
    return -10 * error.clamp(min=1e-10).log10()


def random_patches(x: Tensor, patch: Grid | None) -> Tensor:
    """A random patch of each case of (B, C, D, H, W), drawn from torch's random state.

    Without `patch` the cases as they are, and nothing is drawn.
    """
    if patch is None:
        return x
    return torch.stack([case[(..., *_box(case.shape[1:], patch))] for case in x])


def patches_of_labels(
    labels: NDArray[np.uint8], patch: Grid | None, around: float = 0.5
) -> NDArray[np.uint8]:
    """A random patch of each label map of (B, D, H, W), drawn from torch's random state.

    A share `around` of them holds a random voxel of a structure, each structure of the case as
    likely as the others: small ones would hardly be seen otherwise.
    """
    if patch is None:
        return labels
    return np.stack([one[_box(one.shape, patch, _voxel(one, around))] for one in labels])


def _box(grid: Sequence[int], patch: Grid, voxel: Sequence[int] | None = None) -> tuple[slice, ...]:
    """Where a patch lies: anywhere in the grid, or anywhere that holds `voxel`."""
    box = []
    for axis, (side, length) in enumerate(zip(grid, patch, strict=True)):
        first, last = 0, side - length
        if voxel is not None:
            first, last = max(first, voxel[axis] - length + 1), min(last, voxel[axis])
        start = int(torch.randint(first, last + 1, ()))
        box.append(slice(start, start + length))
    return tuple(box)


def _voxel(label: NDArray[np.uint8], around: float) -> tuple[int, ...] | None:
    """A voxel of a structure with probability `around`, if there is any."""
    structures = np.unique(label[label > 0])
    if not len(structures) or float(torch.rand(())) >= around:
        return None
    value = structures[int(torch.randint(len(structures), ()))]
    where = np.flatnonzero(label == value)
    chosen = where[int(torch.randint(len(where), ()))]
    return tuple(int(i) for i in np.unravel_index(chosen, label.shape))

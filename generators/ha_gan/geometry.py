"""Grids of the hierarchical amortised GAN: volume, latent grid, seed, and the slabs of training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int, int]

SCALE = 4  # a latent voxel covers 4 x 4 x 4 voxels of the volume
LARGEST_SEED = 4  # the generator starts from at most 4 voxels a side


@dataclass(frozen=True)
class Geometry:
    """Everything that follows from the grid (D, H, W); its sides are multiples of 4.

    For cubes of side S = 32, 64, 128, 256, ... the latent grid has side S/4, is reached from a
    seed of 4 voxels a side by log2(S/16) doublings, and a slab is S/32 latent voxels thick, as in
    the paper. Other grids follow the same rules axis by axis, fractions rounded up.
    """

    grid: Size

    @property
    def latent(self) -> Size:
        """Sides of the latent grid and of the low-resolution volume."""
        d, h, w = self.grid
        return d // SCALE, h // SCALE, w // SCALE

    @property
    def slab(self) -> int:
        """Thickness of a slab along the first axis, in latent voxels; 4 times that in voxels."""
        return math.ceil(self.grid[0] / 32)

    @property
    def positions(self) -> int:
        """How many positions a slab can take on the latent grid."""
        return self.latent[0] - self.slab + 1

    @property
    def levels(self) -> tuple[Size, ...]:
        """Grids from the seed to the latent grid; each axis doubles from 3 or 4 voxels on.

        A short axis waits until the long ones are as close to the end as it is.
        """
        doublings = [max(0, math.ceil(math.log2(n / LARGEST_SEED))) for n in self.latent]
        sizes = []
        for left in range(max(doublings), -1, -1):
            d, h, w = (
                math.ceil(n / 2 ** min(left, own))
                for n, own in zip(self.latent, doublings, strict=True)
            )
            sizes.append((d, h, w))
        return tuple(sizes)

    def latent_slab(self, latent: Tensor, position: int) -> Tensor:
        """(B, C, D/4, H/4, W/4) -> (B, C, slab, H/4, W/4) from latent voxel `position` on."""
        return latent[:, :, position : position + self.slab]

    def image_slab(self, volume: Tensor, position: int) -> Tensor:
        """(B, C, D, H, W) -> (B, C, 4 slab, H, W): the voxels that `latent_slab` stands for."""
        return volume[:, :, SCALE * position : SCALE * (position + self.slab)]

    def low_resolution(self, volume: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, D/4, H/4, W/4): mean of the voxels under each latent voxel."""
        return F.avg_pool3d(volume, SCALE)

    @property
    def cover(self) -> tuple[tuple[int, int], ...]:
        """Slabs that tile the latent grid, as (position, how many of its last layers are new)."""
        starts = range(0, self.latent[0], self.slab)
        last = self.latent[0] - self.slab
        return tuple((min(p, last), self.slab - max(0, p - last)) for p in starts)


class Reduction(NamedTuple):
    """Kernel, stride and padding of one convolution that shrinks a grid."""

    kernel: Size
    stride: Size
    padding: Size


def reductions(size: Size, target: Size) -> tuple[list[Reduction], Size]:
    """Convolutions that halve each side until it is at most its target, and the sides they leave.

    Kernel 4 and padding 1 while a side is above 4, kernel 2 below; a side that has arrived keeps
    its length (kernel 3, or 1 for a single voxel).
    """
    layers = []
    while any(n > t for n, t in zip(size, target, strict=True)):
        axes = [_axis(n, t) for n, t in zip(size, target, strict=True)]
        (k0, s0, p0), (k1, s1, p1), (k2, s2, p2) = axes
        layers.append(Reduction((k0, k1, k2), (s0, s1, s2), (p0, p1, p2)))
        d, h, w = ((n + 2 * p - k) // s + 1 for n, (k, s, p) in zip(size, axes, strict=True))
        size = (d, h, w)
    return layers, size


def _axis(size: int, target: int) -> Size:
    """(kernel, stride, padding) along one axis."""
    if size > target:
        return (4, 2, 1) if size > 4 else (2, 2, 0)
    return (1, 1, 0) if size == 1 else (3, 1, 1)

"""Differentiable augmentation of what the discriminators see, for training on few volumes.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", arXiv 2006.10738: real
and generated volumes are changed alike, in the steps of D and of G, so the discriminator cannot
learn the cases by heart and the generator does not learn the changes. The slab and the
low-resolution volume of a case are changed as one volume would be.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional as F

from generators.ha_gan.geometry import SCALE

SHIFT = 1 / 8  # of a side, as in the paper
FLIP = 0.25  # below one half: at one half a flipped volume would look as real as one as it is
CONTRAST, BRIGHTNESS = 0.5, 0.25  # at most; volumes are in [-1, 1]
BACKGROUND = -1.0


def augment(slab: Tensor, low: Tensor, kinds: Collection[str]) -> tuple[Tensor, Tensor]:
    """Slabs (B, C, 4 slab, H, W) and low-resolution volumes (B, C, D/4, H/4, W/4), changed.

    Each case of the batch gets its own change, drawn from torch's random state. Flips and shifts
    stay within the plane of the slab, whose position the discriminator is told.
    """
    if "flip" in kinds:
        axes = [[a for a in (-2, -1) if torch.rand(()) < FLIP] for _ in slab]
        slab, low = (
            torch.stack([v.flip(own) for v, own in zip(x, axes, strict=True)]) for x in (slab, low)
        )
    if "translate" in kinds:
        moves = [[_shift(side) for side in low.shape[-2:]] for _ in slab]
        slab = _moved(slab, [[SCALE * n for n in move] for move in moves])
        low = _moved(low, moves)
    if "contrast" in kinds:
        shape = (len(slab), 1, 1, 1, 1)
        factor = 1 + CONTRAST * (2 * torch.rand(shape, device=slab.device) - 1)
        offset = BRIGHTNESS * (2 * torch.rand(shape, device=slab.device) - 1)
        mean = low[:, :1].mean((1, 2, 3, 4), keepdim=True)
        slab, low = (_contrasted(x, mean, factor, offset) for x in (slab, low))
    return slab, low


def _shift(side: int) -> int:
    """A draw from -1/8 to 1/8 of `side`, in whole voxels of the latent grid."""
    largest = max(1, round(SHIFT * side))
    return int(torch.randint(-largest, largest + 1, ()))


def _moved(volumes: Tensor, moves: list[list[int]]) -> Tensor:
    """Each volume moved along its last two axes; background comes in from outside."""
    return torch.stack(
        [
            F.pad(v, (w, -w, h, -h), value=BACKGROUND)
            for v, (h, w) in zip(volumes, moves, strict=True)
        ]
    )


def _contrasted(volumes: Tensor, mean: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """The image channel spread about `mean` by `factor` and made brighter; labels stay."""
    image = (volumes[:, :1] - mean) * factor + mean + offset
    return torch.cat([image, volumes[:, 1:]], dim=1)

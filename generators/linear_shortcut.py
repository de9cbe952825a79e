"""A linear code beside an autoencoder's network: what the network learns is what it lacks.

After the residual autoencoding of DC-AE (Chen et al., arXiv 2410.10733), whose shortcuts pack
blocks of voxels into channels; here the packed block is projected onto its principal components.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import Tensor, nn

from generators.patch_pca import PatchPCA


class LinearShortcut(nn.Module):
    """Patches of side³ voxels to `channels` numbers and back; fixed, and part of the state.

    The numbers keep the ratios of their spread: the first component has most of it, and all
    together have unit standard deviation.
    """

    mean: Tensor
    axes: Tensor
    scale: Tensor

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("mean", torch.zeros(side**3))
        self.register_buffer("axes", torch.zeros(side**3, channels))
        self.register_buffer("scale", torch.ones(()))

    def start_from(self, pca: PatchPCA) -> None:
        """Take over the components of `pca`, which has the same side and as many components."""
        self.mean.copy_(pca.mean)
        self.axes.copy_(pca.axes)
        self.scale.copy_(pca.spread.square().mean().sqrt())

    def encode(self, x: Tensor) -> Tensor:
        """(B, 1, D, H, W) -> (B, channels, D / side, H / side, W / side), float32."""
        with _without_autocast(x):
            patches = pixelunshuffle(x.float(), 3, self.side).movedim(1, -1) - self.mean
            code: Tensor = (patches @ self.axes / self.scale).movedim(-1, 1)
            return code

    def decode(self, z: Tensor) -> Tensor:
        """(B, channels, d, h, w) -> (B, 1, side d, side h, side w), float32."""
        with _without_autocast(z):
            patches = z.float().movedim(1, -1) * self.scale @ self.axes.T + self.mean
            whole: Tensor = pixelshuffle(patches.movedim(-1, 1), 3, self.side)
            return whole


def _without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Components are exact in float32 only; devices without autocast (meta) need nothing."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)

"""Networks of the hierarchical amortised GAN (HA-GAN).

Sun, Chen, Xu, Gong, Yu, Batmanghelich, "Hierarchical Amortized GAN for 3D High Resolution Medical
Image Synthesis", IEEE JBHI 26(8), 2022, https://doi.org/10.1109/JBHI.2022.3172976. Volumes are in
[-1, 1]. Channel numbers are the paper's times `width`, in multiples of 8. In joint mode a volume
has C = 1 + K channels: the image, and one for each of K classes; C is 1 otherwise.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from generators.ha_gan.geometry import LARGEST_SEED, Geometry, reductions

GROUPS = 8
SLOPE = 0.2  # of the discriminators' leaky ReLU
SEED_CHANNELS = 512
COMMON_CHANNELS = (512, 512, 256, 128, 64)  # of the convolutions of G^A
LATENT_CHANNELS = COMMON_CHANNELS[-1]


def scaled(channels: int, width: float) -> int:
    """The multiple of 8 nearest to `width` times `channels`, at least 8."""
    return max(GROUPS, GROUPS * round(channels * width / GROUPS))


def doubling(last: int, layers: int, width: float) -> list[int]:
    """Channels of `layers` convolutions that double up to `last`."""
    return [scaled(last >> (layers - 1 - i), width) for i in range(layers)]


def normalised(convolution: nn.Conv3d) -> nn.Sequential:
    """The convolution, group norm with 8 groups, ReLU."""
    return nn.Sequential(
        convolution, nn.GroupNorm(GROUPS, convolution.out_channels), nn.ReLU(inplace=True)
    )


def conv3(before: int, after: int) -> nn.Conv3d:
    return nn.Conv3d(before, after, kernel_size=3, padding=1)


class CommonGenerator(nn.Module):
    """G^A: noise (B, latent_dim) -> latent grid (B, 64, D/4, H/4, W/4)."""

    def __init__(self, geometry: Geometry, latent_dim: int, width: float) -> None:
        super().__init__()
        self.levels = geometry.levels
        self.channels = scaled(SEED_CHANNELS, width)
        self.seed = nn.Linear(latent_dim, self.channels * _voxels(self.levels[0]))
        extra = max(0, len(self.levels) - len(COMMON_CHANNELS))
        after = [scaled(c, width) for c in (*COMMON_CHANNELS, *[LATENT_CHANNELS] * extra)]
        self.blocks = nn.ModuleList(
            normalised(conv3(a, b)) for a, b in pairwise((self.channels, *after))
        )

    def forward(self, noise: Tensor) -> Tensor:
        h: Tensor = self.seed(noise).view(-1, self.channels, *self.levels[0])
        for i, block in enumerate(self.blocks):
            if 0 < i < len(self.levels):
                h = F.interpolate(h, size=self.levels[i], mode="nearest")
            h = block(h)
        return h


class Output(nn.Module):
    """Channels (B, C, ...) -> (B, C, ...) in [-1, 1]: tanh the image, softmax the classes."""

    def forward(self, h: Tensor) -> Tensor:
        image = torch.tanh(h[:, :1])
        return image if h.shape[1] == 1 else torch.cat([image, 2 * h[:, 1:].softmax(1) - 1], dim=1)


class HighResolutionGenerator(nn.Module):
    """G^H: latent grid or a slab of it (B, 64, d, h, w) -> volume (B, C, 4d, 4h, 4w).

    Its group norm sees a slab in training and the whole grid in sampling, as in the paper.
    """

    def __init__(self, width: float, channels: int = 1) -> None:
        super().__init__()
        latent, middle = scaled(LATENT_CHANNELS, width), scaled(32, width)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.block = normalised(conv3(latent, middle))
        self.output = conv3(middle, channels)
        self.activation = Output()

    def forward(self, latent: Tensor) -> Tensor:
        h = self.block(self.upsample(latent))
        volume: Tensor = self.activation(self.output(self.upsample(h)))
        return volume


class LowResolutionGenerator(nn.Sequential):
    """G^L: latent grid (B, 64, D/4, H/4, W/4) -> low-resolution volume (B, C, D/4, H/4, W/4)."""

    def __init__(self, width: float, channels: int = 1) -> None:
        latent, first, second = (scaled(c, width) for c in (LATENT_CHANNELS, 32, 16))
        super().__init__(
            normalised(conv3(latent, first)),
            normalised(conv3(first, second)),
            conv3(second, channels),
            Output(),
        )


class HierarchicalGenerator(nn.Module):
    """G = (G^A, G^H, G^L): noise (B, latent_dim) -> volume (B, C, D, H, W) in [-1, 1]."""

    def __init__(
        self, geometry: Geometry, latent_dim: int = 1024, width: float = 1.0, channels: int = 1
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.common = CommonGenerator(geometry, latent_dim, width)
        self.high = HighResolutionGenerator(width, channels)
        self.low = LowResolutionGenerator(width, channels)

    def forward(self, noise: Tensor) -> Tensor:
        volume: Tensor = self.high(self.common(noise))
        return volume

    def slab_and_low(self, noise: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """What training sees: the slab at `position`, and the whole volume at low resolution."""
        latent = self.common(noise)
        return self.high(self.geometry.latent_slab(latent, position)), self.low(latent)


class BatchSpread(nn.Module):
    """Features (B, C, d, h, w) with one channel more: how much they differ over the batch.

    The minibatch standard deviation of Karras et al., arXiv 1710.10196: the mean over channels and
    voxels of the standard deviation over the B cases. A generator that draws the same volume again
    and again is told by it.
    """

    def forward(self, features: Tensor) -> Tensor:
        variance = features.float().var(0, unbiased=False)
        spread = (variance + 1e-8).sqrt().mean().to(features.dtype)
        return torch.cat([features, spread.expand_as(features[:, :1])], dim=1)


class SlabDiscriminator(nn.Module):
    """D^H: slab (B, C, 4 slab, H, W) and its position in [0, 1] -> logit (B, 1)."""

    def __init__(
        self, geometry: Geometry, width: float, channels: int = 1, *, batch_spread: bool = False
    ) -> None:
        super().__init__()
        _, height, breadth = geometry.grid
        layers, rest = reductions(
            (4 * geometry.slab, height, breadth), (1, LARGEST_SEED, LARGEST_SEED)
        )
        widths = [channels, *doubling(512, len(layers), width)]
        convolutions = [
            nn.Conv3d(a, b, *layer) for (a, b), layer in zip(pairwise(widths), layers, strict=True)
        ]
        features, hidden = scaled(128, width), scaled(64, width)
        self.convolutions = _discriminating(*convolutions)
        self.spread: nn.Module = BatchSpread() if batch_spread else nn.Identity()
        self.features = _discriminating(nn.Conv3d(widths[-1] + batch_spread, features, rest))
        self.hidden = _discriminating(nn.Linear(features + 1, hidden))
        self.logit = spectral_norm(nn.Linear(hidden, 1))

    def forward(self, slab: Tensor, position: float) -> Tensor:
        h = self.features(self.spread(self.convolutions(slab))).flatten(1)
        h = torch.cat([h, h.new_full((len(h), 1), position)], dim=1)
        logit: Tensor = self.logit(self.hidden(h))
        return logit


class LowResolutionDiscriminator(nn.Module):
    """D^L: low-resolution volume (B, C, D/4, H/4, W/4) -> logit (B, 1)."""

    def __init__(
        self, geometry: Geometry, width: float, channels: int = 1, *, batch_spread: bool = False
    ) -> None:
        super().__init__()
        layers, rest = reductions(geometry.latent, (LARGEST_SEED,) * 3)
        widths = [channels, *doubling(256, len(layers), width)]
        self.features = _discriminating(
            *(
                nn.Conv3d(a, b, *layer)
                for (a, b), layer in zip(pairwise(widths), layers, strict=True)
            )
        )
        self.spread: nn.Module = BatchSpread() if batch_spread else nn.Identity()
        self.logit = spectral_norm(nn.Conv3d(widths[-1] + batch_spread, 1, rest))

    def forward(self, volume: Tensor) -> Tensor:
        logit: Tensor = self.logit(self.spread(self.features(volume))).flatten(1)
        return logit


class HierarchicalDiscriminator(nn.Module):
    """D = (D^H, D^L): the mean of the logits of a slab and of the low-resolution volume, (B, 1)."""

    def __init__(
        self,
        geometry: Geometry,
        width: float = 1.0,
        channels: int = 1,
        *,
        batch_spread: bool = False,
    ) -> None:
        super().__init__()
        self.last_position = max(1, geometry.positions - 1)
        self.high = SlabDiscriminator(geometry, width, channels, batch_spread=batch_spread)
        self.low = LowResolutionDiscriminator(geometry, width, channels, batch_spread=batch_spread)

    def forward(self, slab: Tensor, low: Tensor, position: int) -> Tensor:
        logits: Tensor = self.high(slab, position / self.last_position) + self.low(low)
        return logits / 2


class SlabEncoder(nn.Sequential):
    """E: slab (B, C, 4 slab, H, W) -> slab of the latent grid (B, 64, slab, H/4, W/4)."""

    def __init__(self, width: float = 1.0, channels: int = 1) -> None:
        middle, latent = scaled(32, width), scaled(LATENT_CHANNELS, width)
        super().__init__(
            normalised(nn.Conv3d(channels, middle, kernel_size=4, stride=2, padding=1)),
            normalised(conv3(middle, middle)),
            normalised(nn.Conv3d(middle, latent, kernel_size=4, stride=2, padding=1)),
        )


class GridEncoder(nn.Module):
    """Sub_E: latent grid (B, 64, D/4, H/4, W/4) -> noise (B, latent_dim)."""

    def __init__(self, geometry: Geometry, latent_dim: int = 1024, width: float = 1.0) -> None:
        super().__init__()
        layers, rest = reductions(geometry.latent, (LARGEST_SEED,) * 3)
        channels = [scaled(LATENT_CHANNELS, width), *doubling(256, len(layers), width)]
        self.features = nn.Sequential(
            *(
                normalised(nn.Conv3d(a, b, *layer))
                for (a, b), layer in zip(pairwise(channels), layers, strict=True)
            )
        )
        self.noise = nn.Conv3d(channels[-1], latent_dim, rest)

    def forward(self, latent: Tensor) -> Tensor:
        noise: Tensor = self.noise(self.features(latent)).flatten(1)
        return noise


def _discriminating(*layers: nn.Module) -> nn.Sequential:
    """The layers under spectral norm, each followed by leaky ReLU."""
    pairs = ((spectral_norm(layer), nn.LeakyReLU(SLOPE)) for layer in layers)
    return nn.Sequential(*(module for pair in pairs for module in pair))


def _voxels(size: tuple[int, int, int]) -> int:
    return size[0] * size[1] * size[2]

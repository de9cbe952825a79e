"""Autoencoders of volumes that do not fit at once: patches in training, tiles afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from monai.inferers import sliding_window_inference
from monai.networks.utils import pixelshuffle, pixelunshuffle
from pydantic import Field
from torch import Tensor, nn

from bench.errors import InputError
from bench.generator import Frozen
from generators.unet import Grid, check_divisible

OVERLAP = 0.25  # of neighbouring tiles, along each side

Network = Callable[[Tensor], Tensor]


class TiledConfig(Frozen):
    """How much of a volume an autoencoder sees at once."""

    training_patch: Grid | None = Field(
        None,
        description="voxels a side of the random patch that each step takes of a case, multiples "
        "of the autoencoder's factor; null trains on whole volumes",
    )
    tile: Grid | None = Field(
        None,
        description="voxels a side of the tiles that volumes are encoded and decoded in, multiples "
        "of the autoencoder's factor; it bounds memory; null takes the volume whole",
    )

    @property
    def factor(self) -> int:
        """Voxels of the image along one side of a latent voxel."""
        raise NotImplementedError

    def trained_on(self, grid: Grid) -> Grid:
        """Grid of what the network sees in training."""
        return self.training_patch or grid


def check_tiling(config: TiledConfig, grid: Grid, where: str) -> None:
    """InputError if `grid`, or the patches or tiles of it, do not fit the autoencoder."""
    check_divisible(grid, config.factor, where)
    for name, sides in (("training_patch", config.training_patch), ("tile", config.tile)):
        if sides is not None and any(s % config.factor or s < config.factor for s in sides):
            raise InputError(
                f"{where}.{name} is {sides}, whose sides are not all multiples of the "
                f"autoencoder's factor {config.factor}; choose multiples of it."
            )
    patch = config.training_patch
    if patch is not None and any(p > side for p, side in zip(patch, grid, strict=True)):
        raise InputError(
            f"{where}.training_patch is {patch}, larger than the grid {grid}; choose a smaller "
            "patch, or leave it out to train on whole volumes."
        )


class TiledAutoencoder(nn.Module, ABC):
    """An autoencoder that takes whole volumes in overlapping tiles, blended by a Gaussian.

    Only the volume itself is ever held at full size: what goes through the network is one tile.
    The normalisation layers see a tile, too, so the result is near that of the whole volume and
    equal only where the network is local.
    """

    def __init__(self, config: TiledConfig) -> None:
        super().__init__()
        self.factor, self.tile = config.factor, config.tile

    @abstractmethod
    def latents(self, x: Tensor) -> Tensor:
        """What the latents of x (B, C, D, H, W) are cached as, (B, c, d, h, w): never a draw."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Volumes (B, C, D, H, W) of latents (B, c, d, h, w)."""

    def encode_volume(self, x: Tensor) -> Tensor:
        """`latents` of volumes of any size, tile by tile where the configuration says so."""
        return x_to_z(self.latents, x, self.tile, self.factor)

    def decode_volume(self, z: Tensor) -> Tensor:
        """`decode` for volumes of any size, tile by tile where the configuration says so."""
        return z_to_x(self.decode, z, self.tile, self.factor)


def x_to_z(encode: Network, x: Tensor, tile: Grid | None, factor: int) -> Tensor:
    """Encode x (B, C, D, H, W) in tiles of `tile` voxels.

    Tiles begin where latent voxels begin: the sliding window walks over blocks of factor³ voxels,
    put into the channels, so that its input and output have one size.
    """
    if tile is None or not _exceeds(x, tile):
        return encode(x)
    blocks = pixelunshuffle(x, 3, factor)
    return _slide(lambda part: encode(pixelshuffle(part, 3, factor)), blocks, _latent(tile, factor))


def z_to_x(decode: Network, z: Tensor, tile: Grid | None, factor: int) -> Tensor:
    """Decode z (B, C, d, h, w) in tiles of `tile` voxels, tile / factor latent voxels."""
    if tile is None or not _exceeds(z, _latent(tile, factor)):
        return decode(z)
    return _slide(decode, z, _latent(tile, factor))


def _slide(network: Network, x: Tensor, tile: Grid) -> Tensor:
    roi = [min(t, side) for t, side in zip(tile, x.shape[2:], strict=True)]
    blended: Tensor = sliding_window_inference(
        x,
        roi,
        sw_batch_size=1,
        predictor=lambda part: network(part).float(),  # tiles are summed in float32
        overlap=OVERLAP,
        mode="gaussian",
    )
    return blended


def _exceeds(x: Tensor, tile: Grid) -> bool:
    return any(side > t for side, t in zip(x.shape[2:], tile, strict=True))


def _latent(tile: Grid, factor: int) -> Grid:
    a, b, c = (side // factor for side in tile)
    return a, b, c

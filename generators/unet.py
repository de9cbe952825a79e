"""The denoising U-Net of every diffusion model here: MONAI's DiffusionModelUNet, and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import DiffusionModelUNet
from pydantic import Field

from bench.errors import InputError
from bench.generator import Frozen

Grid = tuple[int, int, int]


class UNetConfig(Frozen):
    """Size of a denoising U-Net; each level after the first halves the grid."""

    channels: tuple[int, ...] = Field(
        (256, 256, 512), min_length=1, description="width of each level"
    )
    num_res_blocks: int = Field(2, gt=0, description="residual blocks in each level")
    attention_levels: tuple[bool, ...] = Field(
        (False, True, True), description="which levels attend; the bottleneck always does"
    )
    head_channels: int = Field(64, gt=0, description="channels of one attention head")
    norm_groups: int = Field(32, gt=0, description="groups of GroupNorm; divides every width")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments that DiffusionModelUNet and ControlNet share.

        Levels without attention name no heads, and the bottleneck takes the last entry.
        """
        return {
            "spatial_dims": 3,
            "channels": self.channels,
            "num_res_blocks": self.num_res_blocks,
            "attention_levels": self.attention_levels,
            "num_head_channels": self.head_channels,
            "norm_num_groups": self.norm_groups,
        }


def build_unet(config: UNetConfig, channels: int) -> DiffusionModelUNet:
    """A U-Net from (B, channels, D, H, W) and timesteps (B,) to the same shape; its output is 0."""
    return DiffusionModelUNet(in_channels=channels, out_channels=channels, **config.arguments())


def check_unet(config: UNetConfig, grid: Grid, where: str) -> None:
    """InputError if the U-Net cannot be built, or cannot take `grid` (that of its input)."""
    check_groups(config.channels, config.norm_groups, where)
    if len(config.attention_levels) != len(config.channels):
        raise InputError(
            f"{where}.attention_levels has {len(config.attention_levels)} entries for "
            f"{len(config.channels)} channels; give one for each level."
        )
    attending = [c for c, a in zip(config.channels, config.attention_levels, strict=True) if a]
    for width in (*attending, config.channels[-1]):
        if width % config.head_channels:
            raise InputError(
                f"{where}.head_channels is {config.head_channels}, which does not divide the width "
                f"{width} of a level with attention; choose a divisor."
            )
    check_divisible(grid, 2 ** (len(config.channels) - 1), where)


def check_groups(channels: Sequence[int], groups: int, where: str) -> None:
    """InputError unless GroupNorm's groups divide every width."""
    for width in channels:
        if width % groups:
            raise InputError(
                f"{where}.norm_groups is {groups}, which does not divide the width {width} in "
                f"{where}.channels; choose a divisor of every width."
            )


def check_divisible(grid: Grid, factor: int, where: str) -> None:
    """InputError unless every side is a positive multiple of `factor`."""
    if any(side % factor or side < factor for side in grid):
        raise InputError(
            f"{where} needs sides divisible by {factor}, its input has the grid {grid}; choose "
            f"another grid for the data or fewer levels for {where}."
        )

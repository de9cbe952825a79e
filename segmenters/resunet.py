"""ResUNet: a U-Net of residual units (Zhang et al. 2018; Kerfoot et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench import register_segmenter
from segmenters.unet import UNetConfig, build_unet

if TYPE_CHECKING:
    from torch import nn


class ResUNetConfig(UNetConfig):
    """A U-Net's configuration with residual units."""

    residual_units: int = Field(2, gt=0, description="residual units per level")


@register_segmenter("resunet", ResUNetConfig)
def resunet(
    in_channels: int, out_channels: int, size: tuple[int, int, int], config: ResUNetConfig
) -> nn.Module:
    """ResUNet: the U-Net with two residual units a level (4.8 M parameters)."""
    return build_unet(in_channels, out_channels, size, config, "resunet")

"""WideResUNet: the residual U-Net with twice the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench import register_segmenter
from segmenters.resunet import ResUNetConfig
from segmenters.unet import build_unet

if TYPE_CHECKING:
    from torch import nn


class WideResUNetConfig(ResUNetConfig):
    """A residual U-Net's configuration with wide levels."""

    channels: tuple[int, ...] = Field((32, 64, 128, 256, 512), description="channels of each level")


@register_segmenter("wideresunet", WideResUNetConfig)
def wideresunet(
    in_channels: int, out_channels: int, size: tuple[int, int, int], config: WideResUNetConfig
) -> nn.Module:
    """WideResUNet: residual units, five levels of 32 to 512 channels (19.2 M parameters)."""
    return build_unet(in_channels, out_channels, size, config, "wideresunet")

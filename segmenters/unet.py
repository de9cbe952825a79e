"""U-Net (Ronneberger et al. 2015; Cicek et al. 2016) as MONAI builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench import SegmenterConfig, register_segmenter
from bench.sizes import require_divisible

if TYPE_CHECKING:
    from torch import nn


class UNetConfig(SegmenterConfig):
    """Widths of the encoder's levels; each level below the first halves the resolution."""

    channels: tuple[int, ...] = Field((16, 32, 64, 128, 256), description="channels of each level")
    residual_units: int = Field(
        0, ge=0, description="residual units per level; 0 is the plain U-Net"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout probability")


def build_unet(
    in_channels: int, out_channels: int, size: tuple[int, int, int], config: UNetConfig, name: str
) -> nn.Module:
    """MONAI's UNet with stride 2 between levels."""
    from monai.networks.nets import UNet

    stride = 2 ** (len(config.channels) - 1)
    # The deepest level needs two voxels a side: instance normalisation of one voxel is zero.
    require_divisible(size, stride, 2 * stride, name)
    network: nn.Module = UNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=config.channels,
        strides=(2,) * (len(config.channels) - 1),
        num_res_units=config.residual_units,
        dropout=config.dropout,
    )
    return network


@register_segmenter("unet", UNetConfig)
def unet(
    in_channels: int, out_channels: int, size: tuple[int, int, int], config: UNetConfig
) -> nn.Module:
    """U-Net: five levels of 16 to 256 channels, plain convolutions (2.0 M parameters)."""
    return build_unet(in_channels, out_channels, size, config, "unet")

"""V-Net (Milletari et al. 2016) as MONAI builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench import SegmenterConfig, register_segmenter
from bench.sizes import require_divisible

if TYPE_CHECKING:
    from torch import nn


class VNetConfig(SegmenterConfig):
    """V-Net's widths are fixed."""

    dropout: float = Field(0.5, ge=0, lt=1, description="dropout probability in the deep levels")


@register_segmenter("vnet", VNetConfig)
def vnet(
    in_channels: int, out_channels: int, size: tuple[int, int, int], config: VNetConfig
) -> nn.Module:
    """V-Net: five levels of 16 to 256 channels with 5x5x5 kernels (45.6 M parameters)."""
    from monai.networks.nets import VNet

    require_divisible(size, 16, 32, "vnet")
    network: nn.Module = VNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        dropout_prob_down=config.dropout or None,
        dropout_prob_up=(config.dropout, config.dropout),
    )
    return network

"""DynUNet: nnU-Net's network (Isensee et al. 2021) as MONAI builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench import SegmenterConfig, register_segmenter
from bench.sizes import require_divisible

if TYPE_CHECKING:
    from torch import nn


class DynUNetConfig(SegmenterConfig):
    """Widths of the five levels and the number of supervised heads below the finest."""

    filters: tuple[int, ...] = Field((32, 64, 128, 256, 320), description="channels of each level")
    deep_supervision: int = Field(
        2, ge=0, description="coarser heads that also get a loss; 0 is none"
    )


@register_segmenter("dynunet", DynUNetConfig)
def dynunet(
    in_channels: int, out_channels: int, size: tuple[int, int, int], config: DynUNetConfig
) -> nn.Module:
    """DynUNet: nnU-Net's network with five levels and deep supervision (16.5 M parameters)."""
    from monai.networks.nets import DynUNet

    levels = len(config.filters)
    stride = 2 ** (levels - 1)
    require_divisible(size, stride, 2 * stride, "dynunet")
    network: nn.Module = DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=config.filters,
        deep_supervision=config.deep_supervision > 0,
        deep_supr_num=max(1, config.deep_supervision),
    )
    return network

"""A small fully convolutional segmenter."""

from __future__ import annotations

from pydantic import Field
from torch import nn

from bench import SegmenterConfig, register_segmenter


class ConvConfig(SegmenterConfig):
    """Width of the network."""

    channels: int = Field(8, gt=0, description="channels of the hidden layers")


@register_segmenter("example-conv", ConvConfig)
def conv(
    in_channels: int, out_channels: int, size: tuple[int, int, int], config: ConvConfig
) -> nn.Module:
    """Three convolutions; the middle one sees a wider neighbourhood."""
    width = config.channels
    return nn.Sequential(
        nn.Conv3d(in_channels, width, 3, padding=1),
        nn.InstanceNorm3d(width),
        nn.ReLU(),
        nn.Conv3d(width, width, 3, padding=2, dilation=2),
        nn.InstanceNorm3d(width),
        nn.ReLU(),
        nn.Conv3d(width, out_channels, 1),
    )

"""The segmenter my-plugin: a small U-Net.

It works as it stands. Replace the network by your own, then ask

    bench check my_plugin.py
    bench run --plugin my_plugin.py --segmenters my-plugin,unet
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import SegmenterConfig, register_segmenter
from bench.sizes import require_divisible


# Every value that you may want to change, with a default and a description. `bench list` shows
# them, `--set segmenters.my-plugin.width=32` changes one.
class MyPluginConfig(SegmenterConfig):
    """Size of the network."""

    width: int = Field(16, gt=0, description="channels of the finest level; each level doubles it")
    levels: int = Field(3, gt=0, description="halvings of the resolution")


def convolutions(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """Two convolutions, each normalised over its own volume: batches may be as small as one."""
    return nn.Sequential(
        nn.Conv3d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.InstanceNorm3d(after, affine=True),
        nn.LeakyReLU(0.01),
        nn.Conv3d(after, after, 3, padding=1, bias=False),
        nn.InstanceNorm3d(after, affine=True),
        nn.LeakyReLU(0.01),
    )


class MyPlugin(nn.Module):
    """Encoder and decoder with a skip connection at every level."""

    def __init__(self, in_channels: int, out_channels: int, config: MyPluginConfig) -> None:
        super().__init__()
        widths = [config.width * 2**level for level in range(config.levels + 1)]
        self.first = convolutions(in_channels, widths[0])
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(convolutions(a, b, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in pairs[::-1])
        self.join = nn.ModuleList(convolutions(2 * a, a) for a, _ in pairs[::-1])
        self.last = nn.Conv3d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) in [0, 1] -> logits (B, out_channels, D, H, W)."""
        skips = [self.first(x)]
        for down in self.down:
            skips.append(down(skips[-1]))
        y: Tensor = skips.pop()
        for up, join in zip(self.up, self.join, strict=True):
            y = join(torch.cat([up(y), skips.pop()], dim=1))
        logits: Tensor = self.last(y)
        return logits


# The harness draws the weights' seed before it calls this, and trains what it returns: with Adam,
# on Dice and cross-entropy, for every task and arm.
@register_segmenter("my-plugin", MyPluginConfig, version="1")
def my_plugin(
    in_channels: int, out_channels: int, size: tuple[int, int, int], config: MyPluginConfig
) -> nn.Module:
    """A small U-Net."""  # the line that `bench list` shows
    stride = 2**config.levels
    require_divisible(size, stride, 2 * stride, "my-plugin")
    return MyPlugin(in_channels, out_channels, config)

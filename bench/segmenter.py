"""What a segmenter is: a function that builds a network, and its registration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.generator import Frozen
from bench.registry import SEGMENTERS

if TYPE_CHECKING:
    from torch import nn


class SegmenterConfig(Frozen):
    """Configuration of a segmenter's network; give every field a default and a description."""


Build = Callable[[int, int, tuple[int, int, int], Any], "nn.Module"]


@dataclass(frozen=True)
class Segmenter:
    """A named network builder.

    `build(in_channels, out_channels, size, config)` returns a network that maps
    (B, in_channels, D, H, W) in [0, 1] to logits (B, out_channels, D, H, W), background first. In
    training it may return (B, heads, out_channels, D, H, W), the first head being the finest: deep
    supervision. It raises InputError for a size that it cannot take.
    """

    name: str
    build: Build
    Config: type[SegmenterConfig]
    version: str = "1"


def register_segmenter(
    name: str, config: type[SegmenterConfig] = SegmenterConfig, version: str = "1"
) -> Callable[[Build], Segmenter]:
    """Function decorator: make the segmenter known under `name`."""

    def register(build: Build) -> Segmenter:
        segmenter = Segmenter(name, build, config, version)
        SEGMENTERS.register(name, segmenter)
        return segmenter

    return register

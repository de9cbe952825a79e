"""bf16 on a CPU without its one trap: small and thin convolutions stay in float32.

torch 2.13's weight gradient of a bf16 Conv3d is uninitialised memory where the output has 2×2×2
voxels, or 1×1×1 at stride 2, and, whatever the other sides, where the kernel reaches the padding at
both ends of the first axis at once: 2 voxels for a kernel of 3, 2 to 4 for one of 5
(docs/adr/0005-precision.md). Such layers cost next to nothing, so all that are anywhere near are
computed in float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

FEW = 64
"""Voxels: eight times those of the largest output that was found to be wrong."""


def keep_small_in_float32(network: nn.Module) -> None:
    """Make every 3D convolution of `network` leave autocast where it has at most `FEW` outputs, or
    no more voxels along the first axis than it pads there.

    For a transposed convolution, whose gradient is a convolution the other way, inputs count.
    Weights, state dict and results in float32 are as before.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            guard = _Guard()
            module.register_forward_pre_hook(guard.enter)
            module.register_forward_hook(guard.leave, always_call=True)


class _Guard:
    """Leaves autocast for one call of one module."""

    def __init__(self) -> None:
        self.left: torch.autocast | None = None

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if _voxels(module, inputs[0]) > FEW and not _thin(module, inputs[0]):
            return None
        self.left = torch.autocast("cpu", enabled=False)
        self.left.__enter__()  # type: ignore[no-untyped-call]
        return (inputs[0].float(), *inputs[1:])

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.left is not None:
            self.left.__exit__(None, None, None)
            self.left = None


def _thin(module: Any, x: Tensor) -> bool:
    """Whether the padding at both ends of the first axis comes to as many voxels as there are."""
    if isinstance(module, nn.ConvTranspose3d) or module.padding == "valid":
        return False
    if module.padding == "same":
        return bool(x.shape[2] <= module.dilation[0] * (module.kernel_size[0] - 1))
    return bool(x.shape[2] <= 2 * module.padding[0])


def _voxels(module: Any, x: Tensor) -> int:
    if isinstance(module, nn.ConvTranspose3d):
        return math.prod(x.shape[2:])
    if module.padding == "same":
        return math.prod(x.shape[2:])
    padding = (0, 0, 0) if module.padding == "valid" else module.padding
    axes = zip(
        x.shape[2:], module.kernel_size, module.stride, padding, module.dilation, strict=True
    )
    return math.prod((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)

"""bf16 on a CPU gives the gradients that float32 gives, also of the smallest layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bench.small_convolutions import keep_small_in_float32

SIDES = [
    (2, 1, (2, 2, 2)),
    (2, 1, (4, 4, 4)),
    (2, 2, (2, 2, 2)),
    (2, 2, (4, 6, 4)),
    (1, 1, (8, 8, 8)),
    (4, 1, (2, 24, 16)),  # thin slabs, as HA-GAN learns from
    (4, 2, (2, 24, 16)),
    (4, 1, (3, 24, 16)),
    (4, 1, (24, 16, 2)),
]


def gradients(network: nn.Module, x: Tensor, bf16: bool) -> list[Tensor]:
    network.zero_grad()
    # Whatever is not written to shall be nan.
    freed = [torch.full((n,), torch.nan) for n in (4096, 13824, 32768) for _ in range(32)]
    del freed
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = network(x).float().square().mean()
    loss.backward()
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize(("batch", "stride", "sides"), SIDES)
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_those_of_float32(
    batch: int, stride: int, sides: tuple[int, int, int], transposed: bool
) -> None:
    torch.manual_seed(0)
    layer: nn.Module = (
        nn.ConvTranspose3d(16, 32, 2, stride=2)
        if transposed
        else nn.Conv3d(16, 32, 3, stride=stride, padding=1)
    )
    x = torch.randn(batch, 16, *sides)
    exact = gradients(layer, x, bf16=False)
    guarded = copy.deepcopy(layer)
    keep_small_in_float32(guarded)
    for _ in range(3):  # uninitialised memory is another number each time
        for mine, true in zip(gradients(guarded, x, bf16=True), exact, strict=True):
            assert float((mine - true).norm() / true.norm()) < 0.02


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("padding", [2, "same"])
def test_wide_kernels_on_thin_volumes_too(depth: int, padding: int | str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv3d(16, 32, 5, padding=padding)
    x = torch.randn(4, 16, depth, 12, 8)
    exact = gradients(layer, x, bf16=False)
    keep_small_in_float32(layer)
    for mine, true in zip(gradients(layer, x, bf16=True), exact, strict=True):
        assert float((mine - true).norm() / true.norm()) < 0.02


def test_small_layers_leave_autocast_and_large_ones_stay() -> None:
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 4, 3, 2, 1))
    keep_small_in_float32(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = network[0](torch.randn(1, 1, 8, 8, 8))
        second = network[1](first)
        again = network[0](torch.randn(1, 1, 8, 8, 8))
    assert (first.dtype, second.dtype, again.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.bfloat16,
    )


def test_autocast_goes_on_after_an_error_in_a_small_layer() -> None:
    layer = nn.Conv3d(2, 4, 3, padding=1)
    keep_small_in_float32(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError):
            layer(torch.randn(1, 5, 2, 2, 2))
        assert torch.is_autocast_enabled("cpu")


def test_a_copy_is_guarded_too_and_the_state_is_unchanged() -> None:
    layer = nn.Conv3d(2, 4, 3, padding=1)
    before = set(layer.state_dict())
    keep_small_in_float32(layer)
    twin = copy.deepcopy(layer)
    assert set(twin.state_dict()) == before
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert twin(torch.randn(1, 2, 2, 2, 2)).dtype == torch.float32

"""The built-in segmenters: shapes, parameters, gradients, and grids that they refuse."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from bench.cells.segmentation import supervised
from bench.errors import InputError
from bench.registry import SEGMENTERS

NAMES = ("unet", "resunet", "wideresunet", "dynunet", "vnet")
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"channels": (4, 8, 8)},
    "resunet": {"channels": (4, 8, 8)},
    "wideresunet": {"channels": (4, 8, 8)},
    "dynunet": {"filters": (4, 8, 8, 8), "deep_supervision": 2},
    "vnet": {},
}


def build(name: str, size: tuple[int, int, int] = (32, 32, 32), **values: Any) -> torch.nn.Module:
    segmenter = SEGMENTERS.get(name)
    network: torch.nn.Module = segmenter.build(1, 4, size, segmenter.Config(**values))
    return network


@pytest.mark.parametrize("name", NAMES)
def test_the_description_tells_the_parameters(name: str) -> None:
    told = re.search(r"\(([\d.]+) M parameters\)", SEGMENTERS.description(name))
    assert told is not None
    with torch.device("meta"):
        network = SEGMENTERS.get(name).build(1, 2, (32, 32, 32), SEGMENTERS.get(name).Config())
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(
        float(told.group(1)), abs=0.05
    )


@pytest.mark.parametrize("name", NAMES)
def test_logits_lie_on_the_grid_and_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    size = (32, 48, 32) if name != "vnet" else (32, 32, 32)
    network = build(name, size, **SMALL[name])
    x = torch.rand(2, 1, *size)
    y = torch.randint(0, 4, (2, 1, *size))
    logits = network.train()(x)
    expected = (2, 3, 4, *size) if name == "dynunet" else (2, 4, *size)
    assert logits.shape == expected

    def loss(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(prediction, label[:, 0])

    supervised(logits, y, loss).backward()  # type: ignore[arg-type, no-untyped-call]
    idle = [
        n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert idle == []
    with torch.no_grad():
        assert network.eval()(x[:1]).shape == (1, 4, *size)


@pytest.mark.parametrize(
    ("name", "size", "values"),
    [
        ("unet", (32, 40, 32), {}),
        ("unet", (16, 32, 32), {}),
        ("unet", (32, 32, 32), {"channels": (4,) * 6}),
        ("resunet", (32, 32, 24), {}),
        ("wideresunet", (32, 32, 24), {}),
        ("dynunet", (32, 32, 24), {}),
        ("vnet", (32, 32, 24), {}),
    ],
)
def test_a_grid_that_a_network_cannot_take_is_named(
    name: str, size: tuple[int, int, int], values: dict[str, Any]
) -> None:
    grid = "x".join(map(str, size))
    with pytest.raises(InputError, match=f"{name} cannot take the grid {grid}: .* multiple of"):
        build(name, size, **values)


def test_residual_networks_are_residual() -> None:
    kinds = {type(m).__name__ for m in build("resunet", **SMALL["resunet"]).modules()}
    assert "ResidualUnit" in kinds
    assert "ResidualUnit" not in {
        type(m).__name__ for m in build("unet", **SMALL["unet"]).modules()
    }


def test_deep_supervision_halves_the_weight_of_each_coarser_head() -> None:
    heads = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1, 1, 1)
    value = supervised(heads, torch.zeros(1), lambda head, label: head.mean())  # type: ignore[arg-type]
    assert float(value) == pytest.approx((1 + 10 / 2 + 100 / 4) / 1.75)

"""Channels last: another layout in memory, the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from bench.device import Device
from bench.run import Run
from bench.training import Networks, train
from bench.training_config import TrainingConfig

Format = Literal["contiguous", "channels_last"]


class Stopped(RuntimeError):
    """As a power cut in the middle of a step."""


def fit(folder: Path, layout: Format, crash_at: int | None = None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(2, 6, 3), nn.SiLU(), nn.Conv3d(6, 2, (1, 2, 3)), nn.Flatten())
    net.append(nn.Linear(2 * 3 * 2 * 1, 2))
    device = Device(
        accelerator="cpu", precision="32-true", memory_format=layout, checkpoint_minutes=1e-9
    )

    def batch(step: int) -> Tensor:
        if step == crash_at:
            raise Stopped
        return torch.randn(2, 2, 5, 5, 5)

    def losses(networks: Networks, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield "all", (networks["net"](x) - 1).square().mean()
        expected = layout == "channels_last"
        weight = networks["net"][0].weight  # type: ignore[index]
        assert weight.is_contiguous(memory_format=torch.channels_last_3d) == expected

    return train(
        Run(0, folder, (8, 8, 8), {}, device),
        {"net": net},
        losses,
        batch,
        TrainingConfig(steps=8, learning_rate=1e-2, ema_decay=0.5),
        average=["net"],
    )["net"]


@pytest.fixture(scope="module")
def contiguous(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return fit(tmp_path_factory.mktemp("contiguous"), "contiguous")


def test_channels_last_learns_the_same(tmp_path: Path, contiguous: dict[str, Tensor]) -> None:
    state = fit(tmp_path, "channels_last")
    assert all(value.is_contiguous() for value in state.values())
    for key, value in state.items():
        torch.testing.assert_close(value, contiguous[key], rtol=1e-4, atol=1e-5)


def test_a_state_loads_bit_for_bit_into_either_layout(tmp_path: Path) -> None:
    state = fit(tmp_path, "channels_last")
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        conv = nn.Conv3d(2, 6, 3).to(memory_format=layout)
        conv.load_state_dict({"weight": state["0.weight"], "bias": state["0.bias"]})
        assert torch.equal(conv.weight, state["0.weight"])


@pytest.mark.parametrize("first", ["contiguous", "channels_last"])
@pytest.mark.parametrize("then", ["contiguous", "channels_last"])
def test_a_fit_goes_on_in_either_layout(
    tmp_path: Path, first: Format, then: Format, contiguous: dict[str, Tensor]
) -> None:
    """Momenta lie as weights do, or a fused step would take one weight's for another's."""
    with pytest.raises(Stopped):
        fit(tmp_path / "fit", first, crash_at=4)
    state = fit(tmp_path / "fit", then)
    for key, value in state.items():
        torch.testing.assert_close(value, contiguous[key], rtol=1e-4, atol=1e-5)
    if first == then:
        whole = fit(tmp_path / "whole", then)
        assert all(torch.equal(state[key], whole[key]) for key in whole)


def test_auto_is_channels_last_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, expected in ((False, "contiguous"), (True, "channels_last")):
        monkeypatch.setattr("torch.cuda.is_available", lambda available=available: available)
        assert Device(accelerator="cpu").resolved_memory_format() == "contiguous"
        assert Device().resolved_memory_format() == expected
        for asked in ("contiguous", "channels_last"):
            chosen = Device.model_validate({"memory_format": asked})
            assert chosen.resolved_memory_format() == asked

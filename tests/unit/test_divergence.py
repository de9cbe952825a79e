"""When a fit is given up, and when it is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.device import Device
from bench.divergence import WINDOW, Diverged, LossWatch
from bench.run import Run
from bench.training import Networks, train
from bench.training_config import TrainingConfig


def end(values: Sequence[float], factor: float = 100.0) -> int | None:
    """The step at which a fit with these losses is given up, or None."""
    watch = LossWatch(factor)
    for step, value in enumerate(values):
        try:
            watch.see("all", value, step)
        except Diverged:
            return step
    return None


def test_the_stated_rule() -> None:
    """Half of the last 20 above the limit, and one more for a median of an even number."""
    begin = [1.0] * WINDOW
    assert end([*begin, *[101.0] * 50]) == WINDOW + WINDOW // 2
    assert end([*begin, *[99.0] * 50]) is None
    assert end([*begin, *[101.0] * 50], factor=0) is None


@given(st.lists(st.floats(0, 1e30), min_size=1, max_size=9), st.integers(0, 10**6))
def test_some_bad_batches_in_a_row_are_no_explosion(spikes: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    calm = rng.uniform(0.5, 1.5, 60).tolist()
    assert end([*calm[:30], *spikes, *calm[30:]]) is None


def test_an_adversary_near_zero_may_come_back() -> None:
    """Binary cross-entropy of a discriminator that wins for a while, and of the generator then."""
    discriminator = [*np.geomspace(1.4, 1e-7, 80), *[1e-7] * 40, *np.geomspace(1e-7, 30, 80)]
    generator = [0.7 + 40 * math.sin(i / 30) ** 2 for i in range(200)]
    wasserstein = [100 * math.sin(i / 15) for i in range(200)]
    for losses in (discriminator, generator, wasserstein):
        assert end(losses) is None


def test_a_loss_that_begins_at_nothing_may_grow() -> None:
    assert end([*[0.0] * 30, *[1e-2] * 50]) is None
    assert end([*[0.0] * 30, *[1.0] * 50]) is not None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_at_once(value: float) -> None:
    assert end([1.0, value]) == 1
    assert end([1.0, value], factor=0) == 1


class Stopped(RuntimeError):
    """As a power cut in the middle of a step."""


def explode(folder: Path, crash_at: int | None = None, factor: float = 50.0) -> None:
    """A fit whose loss is 1 and grows by half at every step from 30 on."""
    device = Device(accelerator="cpu", precision="32-true", checkpoint_minutes=1e-9)

    def batch(step: int) -> int:
        if step == crash_at:
            raise Stopped
        return step

    def losses(networks: Networks, step: int) -> Iterator[tuple[str, Tensor]]:
        zero = 0 * networks["net"](torch.ones(1, 1)).sum()
        yield "all", zero + 1.5 ** max(0, step - 30)

    train(
        Run(0, folder, (8, 8, 8), {}, device),
        {"net": nn.Linear(1, 1)},
        losses,
        batch,
        TrainingConfig(steps=80, explode_factor=factor),
    )


def test_an_exploding_fit_ends_at_the_same_step_stopped_or_not(tmp_path: Path) -> None:
    """1.5^10 is the first loss above 50; the median passes it ten steps later."""
    with pytest.raises(Diverged) as whole:
        explode(tmp_path / "whole")
    assert "'all' has exploded at step 50" in str(whole.value)
    # Nor is a state that lies beyond the limit taken for a good one.
    assert f"step 40, is {tmp_path / 'whole' / 'resume' / 'fit.pt'})" in str(whole.value)
    for crash in (5, 25, 45):
        with pytest.raises(Stopped):
            explode(tmp_path / str(crash), crash_at=crash)
        with pytest.raises(Diverged, match="'all' has exploded at step 50"):
            explode(tmp_path / str(crash))


def test_explosions_are_let_go_on_request(tmp_path: Path) -> None:
    explode(tmp_path, factor=0)

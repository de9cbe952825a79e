"""The training loop against hand-written loops, and against itself when it is stopped."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.device import Device
from bench.run import Run
from bench.training import Batches, Diverged, Interrupted, Networks, train
from bench.training_config import TrainingConfig

CPU = Device(accelerator="cpu", precision="32-true")
STEPS = 12
DATA = torch.randn(6, 1, 6, 6, 6, generator=torch.Generator().manual_seed(7))


def make_run(folder: Path, stop: Callable[[], bool] = lambda: False, device: Device = CPU) -> Run:
    return Run(3, folder, (6, 6, 6), {0: "background"}, device, stop_requested=stop)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv3d(4, 1, 3)
    )


class Stopped(RuntimeError):
    """As a power cut in the middle of a step."""


def adversaries(
    folder: Path,
    stop_at: int | None = None,
    crash_at: int | None = None,
    device: Device = CPU,
) -> dict[str, dict[str, Tensor]]:
    """A GAN's fit with all that has a state: BatchNorm, dropout, EMA, cosine, two optimisers."""
    networks = {"g": network(1), "d": network(2)}
    config = TrainingConfig(
        steps=STEPS,
        batch_size=2,
        learning_rate=1e-2,
        schedule="cosine",
        warmup_steps=3,
        clip_norm=1.0,
        ema_decay=0.8,
        validate_every=4,
        keep="best",
    )
    optimizers = {
        "g": torch.optim.Adam(networks["g"].parameters(), lr=1e-2, betas=(0.5, 0.9)),
        "d": torch.optim.SGD(networks["d"].parameters(), lr=1e-2, momentum=0.9),
    }
    batches, at = Batches(len(DATA), 2, seed=3), [0]

    def batch(step: int) -> Tensor:
        at[0] = step
        if step == crash_at:
            raise Stopped
        x = DATA[batches(step)]
        return x + 0.1 * torch.randn_like(x)

    def losses(nets: Any, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield "d", (nets["d"](x).mean() - 1) ** 2 + nets["d"](nets["g"](x * 0 + 1).sum() * x).mean()
        yield "g", (nets["d"](x * nets["g"](x).mean()).mean() - 1) ** 2

    def validate(nets: Any) -> dict[str, float]:
        assert not nets["g"].training
        return {"score": -float(nets["g"](DATA).square().mean()) + 0.01 * float(torch.rand(()))}

    return train(
        make_run(folder, lambda: at[0] == stop_at, device),
        networks,
        losses,
        batch,
        config,
        optimizers=optimizers,
        average=["g"],
        validate=validate,
        select="score",
    )


def same(a: dict[str, dict[str, Tensor]], b: dict[str, dict[str, Tensor]]) -> bool:
    return all(
        torch.equal(value, b[name][key]) for name, s in a.items() for key, value in s.items()
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, Tensor]], str]:
    folder = tmp_path_factory.mktemp("whole")
    return adversaries(folder), (folder / "fit.csv").read_text()


@pytest.mark.parametrize("stops", [(0,), (3,), (4,), (10,), (2, 2, 7), (1, 5, 9, 10)])
def test_a_fit_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(
    tmp_path: Path, whole: tuple[dict[str, dict[str, Tensor]], str], stops: tuple[int, ...]
) -> None:
    for stop in dict.fromkeys(stops):
        with pytest.raises(Interrupted, match=f"step {stop + 1} of {STEPS}"):
            adversaries(tmp_path, stop_at=stop)
        torch.manual_seed(stop)  # whatever else the process did in between
    assert same(whole[0], adversaries(tmp_path))
    assert (tmp_path / "fit.csv").read_text() == whole[1]


def test_a_fit_that_crashed_goes_on_from_its_last_timed_checkpoint(
    tmp_path: Path,
    whole: tuple[dict[str, dict[str, Tensor]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 10_000, 25))  # seconds; a checkpoint is due every few steps
    monkeypatch.setattr("bench.checkpoint.time.monotonic", lambda: float(next(clock)))
    timed = CPU.model_copy(update={"checkpoint_minutes": 1.0})
    with pytest.raises(Stopped):
        adversaries(tmp_path, crash_at=8, device=timed)
    saved = torch.load(tmp_path / "resume" / "fit.pt", weights_only=True)["step"]
    assert 0 < saved < 8
    assert same(whole[0], adversaries(tmp_path, device=timed))
    assert (tmp_path / "fit.csv").read_text() == whole[1]


def test_the_whole_fit_is_not_trivial(whole: tuple[dict[str, dict[str, Tensor]], str]) -> None:
    assert not same(whole[0], {"g": network(1).state_dict(), "d": network(2).state_dict()})
    rows = [line.split(",") for line in whole[1].splitlines()[1:]]
    each_step = [f"{what}/{name}" for what in ("loss", "grad_norm", "lr") for name in "dg"]
    assert Counter(row[1] for row in rows) == {**dict.fromkeys(each_step, STEPS), "val/score": 3}


@given(
    n=st.integers(1, 30), size=st.integers(1, 7), seed=st.integers(0, 9), epoch=st.integers(0, 3)
)
def test_every_case_is_seen_once_an_epoch(n: int, size: int, seed: int, epoch: int) -> None:
    batches = Batches(n, size, seed)
    seen = [case for step in range(n * (epoch + 1)) for case in batches(step)]
    assert Counter(seen[epoch * n : (epoch + 1) * n]) == Counter(range(n))
    assert all(len(batches(step)) == size for step in range(n))


def test_epochs_and_seeds_draw_other_orders() -> None:
    epochs = [tuple(Batches(20, 20, seed)(step)) for seed in (0, 1) for step in (0, 1)]
    assert len(set(epochs)) == 4


def one_loss(nets: Any, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "all", (nets["net"](x) - 1).square().mean()


def test_adam_is_adam(tmp_path: Path) -> None:
    config = TrainingConfig(steps=20, batch_size=2, learning_rate=3e-3, betas=(0.95, 0.999))
    net = nn.Sequential(nn.Conv3d(1, 3, 3), nn.ReLU(), nn.Conv3d(3, 1, 3))
    hand, batches = copy.deepcopy(net), Batches(len(DATA), 2, seed=0)
    kept = train(
        make_run(tmp_path), {"net": net}, one_loss, lambda step: DATA[batches(step)], config
    )
    adam = torch.optim.Adam(hand.parameters(), lr=3e-3, betas=(0.95, 0.999), foreach=False)
    for step in range(20):
        adam.zero_grad()
        (hand(DATA[batches(step)]) - 1).square().mean().backward()
        adam.step()
    for name, value in hand.state_dict().items():
        torch.testing.assert_close(kept["net"][name], value, rtol=1e-4, atol=1e-6)


def test_the_average_is_the_closed_form(tmp_path: Path) -> None:
    decay, seen = 0.7, []
    net = nn.Linear(1, 1)
    config = TrainingConfig(steps=9, learning_rate=0.1, ema_decay=decay)
    run = make_run(tmp_path)
    run.progress = lambda *step: seen.append(float(net.weight.detach()))
    kept = train(
        run,
        {"net": net},
        one_loss,
        lambda step: torch.ones(2, 1),
        config,
        average=["net"],
    )
    # The average starts at the weights after the first step.
    weights = [decay**8, *((1 - decay) * decay ** (8 - t) for t in range(1, 9))]
    assert sum(weights) == pytest.approx(1)
    expected = sum(w * value for w, value in zip(weights, seen, strict=True))
    assert float(kept["net"]["weight"]) == pytest.approx(expected, abs=1e-6)
    assert abs(float(kept["net"]["weight"]) - seen[-1]) > 1e-3


def test_warm_up_and_cosine(tmp_path: Path) -> None:
    net, used = nn.Linear(1, 1), []
    sgd = torch.optim.SGD(net.parameters(), lr=0.5)
    config = TrainingConfig(steps=24, schedule="cosine", warmup_steps=4)

    def batch(step: int) -> Tensor:
        used.append(sgd.param_groups[0]["lr"])
        return torch.ones(1, 1)

    train(make_run(tmp_path), {"net": net}, one_loss, batch, config, optimizers={"all": sgd})
    assert used[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert used[14] == pytest.approx(0.5 * 0.505)  # half-way down to 1 % of the peak
    assert all(a > b for a, b in pairwise(used[4:]))
    assert 0.005 < used[-1] < 0.01


def test_a_gradient_is_clipped(tmp_path: Path) -> None:
    net = nn.Linear(1, 1)
    before = net.weight.item(), net.bias.item()
    sgd = torch.optim.SGD(net.parameters(), lr=1.0)

    def losses(nets: Any, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield "all", nets["net"](x).sum()  # gradient (3, 1)

    config = TrainingConfig(steps=1, clip_norm=0.1)
    train(
        make_run(tmp_path),
        {"net": net},
        losses,
        lambda step: torch.full((1, 1), 3.0),
        config,
        optimizers={"all": sgd},
    )
    moved = before[0] - net.weight.item(), before[1] - net.bias.item()
    assert moved == pytest.approx((0.3 / math.sqrt(10), 0.1 / math.sqrt(10)), rel=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_fit(tmp_path: Path, value: float) -> None:
    def losses(nets: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "all", nets["net"](torch.ones(1, 1)).sum() * (value if step == 2 else 1.0)

    config = TrainingConfig(steps=5)
    with pytest.raises(Diverged, match=r"'all' is (nan|-?inf) at step 2"):
        train(make_run(tmp_path), {"net": nn.Linear(1, 1)}, losses, lambda step: step, config)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.9, 0.3, 0.2], 1),
        ([0.1, 0.2, 0.3, 0.4], 3),
        ([0.5, 0.4, 0.3, 0.2], 0),
        ([float("nan")] * 4, 3),
        ([float("nan"), 0.0, 0.0, -1.0], 1),
        ([0.9, float("nan"), 0.1, 0.2], 0),
    ],
)
def test_the_best_network_is_kept(tmp_path: Path, scores: list[float], best: int) -> None:
    told, seen = iter(scores), []

    def validate(nets: Any) -> dict[str, float]:
        seen.append(float(nets["net"].weight.detach()))
        return {"dice": next(told)}

    config = TrainingConfig(steps=8, learning_rate=0.1, validate_every=2, keep="best")
    kept = train(
        make_run(tmp_path),
        {"net": nn.Linear(1, 1)},
        one_loss,
        lambda step: torch.ones(1, 1),
        config,
        validate=validate,
        select="dice",
    )
    assert len(set(seen)) == 4
    assert kept["net"]["weight"].item() == seen[best]


def test_a_loss_after_a_yield_sees_that_step_done(tmp_path: Path) -> None:
    net, seen = nn.Linear(1, 1), []
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)

    def losses(nets: Any, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        seen.append(net.weight.item())
        yield "all", nets["net"](x).sum()
        seen.append(net.weight.item())
        yield "all", nets["net"](x).sum()

    config = TrainingConfig(steps=1)
    train(
        make_run(tmp_path),
        {"net": net},
        losses,
        lambda step: torch.ones(1, 1),
        config,
        optimizers={"all": sgd},
    )
    assert [*seen, net.weight.item()] == pytest.approx([seen[0], seen[0] - 0.1, seen[0] - 0.2])


def test_noise_of_a_volume_depends_on_seed_stream_and_index_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first = run.noise(4, (1000,))
    torch.manual_seed(99)
    assert torch.equal(first, run.noise(4, (1000,)))
    others = [run.noise(5, (1000,)), run.noise(4, (1000,), stream=1)]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.15
    assert float(first.std()) == pytest.approx(1, abs=0.1)


def test_a_stage_that_trains_twice_keeps_two_checkpoints(tmp_path: Path) -> None:
    """The second fit must not take the first one's checkpoint for its own."""
    run = Run(0, tmp_path, (32, 32, 32), {}, device_setting=Device(checkpoint_minutes=1e-9))
    for name, width in (("first", 2), ("second", 5)):
        network = torch.nn.Linear(3, width)

        def losses(networks: Networks, batch: Tensor) -> Iterator[tuple[str, Tensor]]:
            yield "all", networks["net"](batch).square().mean()

        kept = train(
            run, {"net": network}, losses, lambda step: torch.ones(2, 3), TrainingConfig(steps=3),
            name=name,
        )  # fmt: skip
        assert kept["net"]["weight"].shape == (width, 3)
    assert {path.name for path in (tmp_path / "resume").iterdir()} == {"first.pt", "second.pt"}


def test_a_network_first_seen_without_gradient_still_learns_under_autocast(tmp_path: Path) -> None:
    """Autocast keeps casts of weights; after a step, and after no_grad, they must be made anew."""
    device = Device(accelerator="cpu", precision="bf16-mixed")
    networks = {"a": nn.Conv3d(1, 1, 1), "b": nn.Conv3d(1, 1, 1)}
    outputs = []

    def losses(nets: Networks, batch: Tensor) -> Iterator[tuple[str, Tensor]]:
        with torch.no_grad():
            fake = nets["b"](batch)
        yield "a", nets["a"](fake).float().square().mean()
        before = nets["a"](batch).detach().float()
        yield "a", nets["a"](batch).float().square().mean()
        outputs.append((before, nets["a"](batch).detach().float()))
        yield "b", nets["b"](batch).float().square().mean()

    start_b = networks["b"].weight.detach().clone()
    train(
        make_run(tmp_path, device=device),
        networks,
        losses,
        lambda step: torch.ones(1, 1, 4, 4, 4),
        TrainingConfig(steps=3),
        optimizers={k: torch.optim.SGD(n.parameters(), lr=0.2) for k, n in networks.items()},
    )
    assert not torch.equal(networks["b"].weight, start_b)
    for before, after in outputs:
        assert not torch.equal(before, after), "the second look must see the step in between"

"""What a fit leaves on the disk: refused where it is another's, whole where the disk is full."""

from __future__ import annotations

import math
import os
import resource
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import checkpoint
from bench.device import Device
from bench.errors import InputError
from bench.run import Run
from bench.training import Diverged, Interrupted, Networks, train
from bench.training_config import TrainingConfig

EACH_STEP = Device(accelerator="cpu", precision="32-true", checkpoint_minutes=1e-9)
CONFIG = TrainingConfig(steps=6, learning_rate=0.1)


class Stopped(RuntimeError):
    """As a power cut in the middle of a step."""


def fit(
    folder: Path,
    config: TrainingConfig = CONFIG,
    *,
    seed: int = 0,
    width: int = 3,
    crash_at: int | None = None,
    stop_at: int | None = None,
    scores: Mapping[int, float] | None = None,
    select: str = "score",
    loss: Callable[[int, Tensor], Tensor] = lambda step, value: value,
    device: Device = EACH_STEP,
    before: Callable[[int], None] = lambda step: None,
) -> dict[str, Tensor]:
    """A linear network's fit; `scores` are those of its validations, by step."""
    torch.manual_seed(seed)
    at = [0]
    run = Run(seed, folder, (8, 8, 8), {}, device, stop_requested=lambda: at[0] == stop_at)

    def batch(step: int) -> tuple[int, Tensor]:
        at[0] = step
        before(step)
        if step == crash_at:
            raise Stopped
        return step, torch.randn(4, 2)

    def losses(networks: Networks, data: tuple[int, Tensor]) -> Iterator[tuple[str, Tensor]]:
        step, x = data
        yield "all", loss(step, (networks["net"](x) - 1).square().mean())

    known = scores or {}
    return train(
        run,
        {"net": nn.Linear(2, width)},
        losses,
        batch,
        config,
        validate=(lambda _: {"score": known[at[0] + 1]}) if scores else None,
        select=select if scores else None,
    )["net"]


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def saved(folder: Path, name: str = "fit.pt") -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "resume" / name, weights_only=True)
    return state


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, "seed is 0 there and 1 here"),
    ({"width": 5}, r"network net: weight is \[3, 2\] there and \[5, 2\] here"),
    (
        {"config": CONFIG.model_copy(update={"learning_rate": 0.2})},
        "training.learning_rate is 0.1 there and 0.2 here",
    ),
    ({"config": CONFIG.model_copy(update={"steps": 9})}, "training.steps is 6 there and 9 here"),
]


@pytest.mark.parametrize(("other", "told"), OTHERS)
def test_a_checkpoint_of_another_configuration_is_refused(
    tmp_path: Path, other: dict[str, Any], told: str
) -> None:
    with pytest.raises(Stopped):
        fit(tmp_path, crash_at=3)
    before = (tmp_path / "resume" / "fit.pt").read_bytes()
    with pytest.raises(InputError, match=f"fit.pt is of another configuration: {told}"):
        fit(tmp_path, **other)
    assert (tmp_path / "resume" / "fit.pt").read_bytes() == before
    fit(tmp_path)  # its own still goes on from it


def test_a_checkpoint_that_says_nothing_of_its_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(tmp_path, crash_at=3)
    state = saved(tmp_path)
    del state["belongs_to"]
    torch.save(state, tmp_path / "resume" / "fit.pt")
    with pytest.raises(InputError, match="seed is absent there and 0 here"):
        fit(tmp_path)


def test_what_changes_no_step_may_differ(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(tmp_path, crash_at=3)
    changed = CONFIG.model_copy(update={"explode_factor": 0.0})
    assert same(fit(tmp_path, changed), fit(tmp_path / "whole"))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, content: bytes | None) -> None:
    with pytest.raises(Stopped):
        fit(tmp_path, crash_at=3)
    path = tmp_path / "resume" / "fit.pt"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(InputError, match=r"fit\.pt cannot be read \(\w+\); put a whole one"):
        fit(tmp_path)


BEST = TrainingConfig(steps=8, learning_rate=0.1, validate_every=1, keep="best")


@pytest.mark.parametrize("select", ["score", "-score"])
def test_last_and_best_are_both_on_the_disk(tmp_path: Path, select: str) -> None:
    sign = -1 if select.startswith("-") else 1
    scores = {s: sign * v for s, v in enumerate([0.1, 0.4, 0.9, 0.2, 0.3, 0.1, 0.0, 0.2], 1)}
    at_three = fit(tmp_path / "three", CONFIG.model_copy(update={"steps": 3}))
    kept = fit(tmp_path / "best", BEST, scores=scores, select=select)
    assert same(kept, at_three)
    best = saved(tmp_path / "best", "fit.best.pt")
    assert (best["step"], best["score"]) == (3, pytest.approx(0.9))
    assert same(best["networks"]["net"], at_three)
    last = BEST.model_copy(update={"keep": "last"})
    assert same(
        fit(tmp_path / "last", last, scores=scores, select=select),
        fit(tmp_path / "eight", CONFIG.model_copy(update={"steps": 8})),
    )
    assert same(saved(tmp_path / "last", "fit.best.pt")["networks"]["net"], at_three)


def test_a_missing_best_checkpoint_is_told_when_the_fit_goes_on(tmp_path: Path) -> None:
    scores = dict(enumerate([0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 1))
    with pytest.raises(Stopped):
        fit(tmp_path, BEST, scores=scores, crash_at=4)
    (tmp_path / "resume" / "fit.best.pt").unlink()
    with pytest.raises(InputError, match=r"fit\.best\.pt, which .*fit\.pt needs, is missing"):
        fit(tmp_path, BEST, scores=scores)


@pytest.mark.parametrize("crash_at", [None, 1, 3, 4, 5])
@pytest.mark.parametrize(
    ("scores", "ends", "best"),
    [
        ([0.1, 0.5, 0.4, 0.3, 0.9, 0.9], 4, 2),
        ([0.1, 0.5, 0.4, 0.6, 0.6, 0.6], 6, 4),
        ([math.nan] * 6, 2, 2),
        ([0.1, math.nan, 0.2, math.nan, 0.1, 0.9], 5, 3),
    ],
)
def test_patience_ends_a_fit_at_the_same_step_stopped_or_not(
    tmp_path: Path, scores: list[float], ends: int, best: int, crash_at: int | None
) -> None:
    config = BEST.model_copy(update={"steps": 6, "patience": 2})
    known = dict(enumerate(scores, 1))
    if crash_at is not None and crash_at < ends:
        with pytest.raises(Stopped):
            fit(tmp_path / "fit", config, scores=known, crash_at=crash_at)
    kept = fit(tmp_path / "fit", config, scores=known)
    rows = (tmp_path / "fit" / "fit.csv").read_text().splitlines()[1:]
    assert max(int(row.split(",")[0]) for row in rows) == ends
    assert same(kept, fit(tmp_path / "best", CONFIG.model_copy(update={"steps": best})))


def test_a_fit_records_its_steps_and_whether_it_ended_early(tmp_path: Path) -> None:
    run = Run(0, tmp_path, (8, 8, 8), {}, EACH_STEP)
    for name, patience in (("fit", 1), ("again", 0)):
        train(
            run,
            {"net": nn.Linear(2, 1)},
            lambda networks, x: iter([("all", networks["net"](x).square().mean())]),
            lambda step: torch.ones(1, 2),
            TrainingConfig(steps=5, validate_every=1, patience=patience),
            validate=lambda _: {"loss": 1.0},
            select="-loss",
            name=name,
        )
    found = {(r["metric"], r["label"]): r["value"] for r in run.records}
    assert found == {
        ("steps", ""): 2,
        ("stopped_early", ""): 1,
        ("steps", "again"): 5,
        ("stopped_early", "again"): 0,
    }


@pytest.mark.parametrize("asked", [{"keep": "best"}, {"patience": 2}])
def test_keep_and_patience_need_a_score(tmp_path: Path, asked: dict[str, Any]) -> None:
    name, value = next(iter(asked.items()))
    with pytest.raises(InputError, match=f"training.{name} is {value}, but .* no validation score"):
        fit(tmp_path, CONFIG.model_copy(update=asked))


def test_a_score_that_validate_does_not_give_is_told(tmp_path: Path) -> None:
    scores = dict.fromkeys(range(1, 9), 0.5)
    with pytest.raises(ValueError, match=r"'dice', but validate gave only \['val/score'\]"):
        fit(tmp_path, BEST, scores=scores, select="dice")


def never_finite(step: int, value: Tensor) -> Tensor:
    return value * (math.nan if step == 4 else 1)


def test_a_diverged_fit_names_its_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Diverged) as told:
        fit(tmp_path, loss=never_finite)
    path = tmp_path / "resume" / "fit.pt"
    assert (
        f"at step 4; lower the learning rate (the last good checkpoint, of step 4, is {path})"
        in (str(told.value))
    )
    good = saved(tmp_path)
    assert good["step"] == 4
    assert same(
        good["networks"]["net"], fit(tmp_path / "four", CONFIG.model_copy(update={"steps": 4}))
    )


def test_a_gradient_that_is_not_finite_ends_the_fit_before_it_is_taken(tmp_path: Path) -> None:
    def steep(step: int, value: Tensor) -> Tensor:
        return (value - value.detach()).clamp(min=0).sqrt() if step == 2 else value  # 0, slope inf

    with pytest.raises(Diverged, match=r"gradient norm of 'all' is (nan|inf) at step 2"):
        fit(tmp_path, loss=steep)
    assert all(bool(v.isfinite().all()) for v in saved(tmp_path)["networks"]["net"].values())


def test_weights_that_are_not_finite_never_replace_a_checkpoint(tmp_path: Path) -> None:
    """Loss and gradient are finite, and a step too long overflows the weights."""

    torch.manual_seed(0)
    net = nn.Linear(1, 1)
    sgd = torch.optim.SGD(net.parameters(), lr=1.0)

    def batch(step: int) -> Tensor:
        sgd.param_groups[0]["initial_lr"] = 3e38 if step >= 2 else 1e-3
        sgd.param_groups[0]["lr"] = sgd.param_groups[0]["initial_lr"]
        return torch.full((1, 1), 30.0)

    with pytest.raises(Diverged, match=r"of the network 'net' is not finite at step 3; .* step 2,"):
        train(
            Run(0, tmp_path, (8, 8, 8), {}, EACH_STEP),
            {"net": net},
            lambda networks, x: iter([("all", networks["net"](x).square().mean())]),
            batch,
            TrainingConfig(steps=5),
            optimizers={"all": sgd},
        )
    assert saved(tmp_path)["step"] == 2


def refuse(monkeypatch: pytest.MonkeyPatch, refused: Callable[[Path], bool]) -> None:
    """A disk that is full once a part of the file is written."""
    real = os.fsync

    def full(descriptor: int) -> None:
        if refused(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(checkpoint.os, "fsync", full)


def test_a_full_disk_leaves_the_earlier_checkpoint_and_the_fit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = [0]
    refuse(monkeypatch, lambda path: path.name == "fit.tmp" and at[0] in (2, 3))
    found = []

    def look(step: int) -> None:
        at[0] = step
        if step:
            found.append(saved(tmp_path)["step"])
            assert [p.name for p in (tmp_path / "resume").iterdir()] == ["fit.pt"]

    with pytest.warns(RuntimeWarning, match=r"fit\.pt of step 3 .*No space left.* of step 2, is"):
        kept = fit(tmp_path, before=look)
    assert found == [1, 2, 2, 2, 5]
    monkeypatch.undo()
    assert same(kept, fit(tmp_path / "whole"))


def test_a_stop_with_a_full_disk_says_where_the_fit_will_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        fit(tmp_path, crash_at=2)
    refuse(monkeypatch, lambda path: path.suffix == ".tmp")
    with (
        pytest.warns(RuntimeWarning, match="No space left"),
        pytest.raises(Interrupted, match="step 4 of 6; run again to go on from step 2: the disk"),
    ):
        fit(tmp_path, stop_at=3)
    monkeypatch.undo()
    assert saved(tmp_path)["step"] == 2
    assert same(fit(tmp_path), fit(tmp_path / "whole"))


def test_the_best_networks_wait_in_memory_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = dict(enumerate([0.1, 0.4, 0.9, 0.2, 0.3, 0.1, 0.0, 0.2], 1))
    three = fit(tmp_path / "three", CONFIG.model_copy(update={"steps": 3}))
    at = [0]
    refuse(monkeypatch, lambda path: path.name == "fit.best.tmp" and 2 <= at[0] <= 4)
    states = []

    def look(step: int) -> None:
        at[0] = step
        if step:
            last = saved(tmp_path / "fit")
            states.append((last["step"], last["best_step"]))

    with pytest.warns(RuntimeWarning, match=r"fit\.best\.pt of step 3 .* stay in memory"):
        kept = fit(tmp_path / "fit", BEST, scores=scores, before=look)
    assert same(kept, three)
    # No state on the disk speaks of a best that is not there with it.
    assert states == [(1, 1), (2, 2), (2, 2), (2, 2), (2, 2), (6, 3), (7, 3)]
    assert same(saved(tmp_path / "fit", "fit.best.pt")["networks"]["net"], three)


def test_a_file_system_that_is_really_full(tmp_path: Path) -> None:
    """In a process that may write only so much: torch hides the system's error, we do not."""
    child = os.fork()
    if not child:
        code = 1
        try:
            state = {"x": torch.zeros(10)}
            checkpoint._write(tmp_path / "fit.pt", state)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            try:
                checkpoint._write(tmp_path / "fit.pt", {"x": torch.zeros(100_000)})
            except OSError as error:
                code = 0 if error.errno else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["fit.pt"]
    assert torch.equal(torch.load(tmp_path / "fit.pt", weights_only=True)["x"], torch.zeros(10))


def test_a_program_error_while_saving_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"pickle|local"):
        checkpoint._write(tmp_path / "fit.pt", {"x": lambda: 0})
    assert list(tmp_path.iterdir()) == []


def test_a_curve_that_a_full_disk_refuses_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import curve

    real, refused = curve.csv.writer, [False]

    class Half:
        """Writes some of a row, then the disk is full."""

        def __init__(self, stream: Any, **options: Any) -> None:
            self.stream, self.real = stream, real(stream, **options)

        def writerows(self, rows: Any) -> None:
            if refused[0]:
                self.stream.write("3,lo")
                self.stream.flush()
                raise OSError(28, "No space left on device")
            self.real.writerows(rows)

    monkeypatch.setattr(curve.csv, "writer", Half)

    def before(step: int) -> None:
        refused[0] = step in (2, 3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(tmp_path / "full", before=before)
        refused[0] = False
        fit(tmp_path / "whole")
    assert (tmp_path / "full" / "fit.csv").read_text() == (
        tmp_path / "whole" / "fit.csv"
    ).read_text()


def test_the_end_of_a_long_fit_is_kept_for_what_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr("bench.checkpoint.time.monotonic", lambda: float(next(clock)))
    seldom = EACH_STEP.model_copy(update={"checkpoint_minutes": 1e6})
    kept = fit(tmp_path, device=seldom)
    assert saved(tmp_path)["step"] == 6

    def never(step: int) -> None:
        raise AssertionError("the fit is done")

    assert same(kept, fit(tmp_path, device=seldom, before=never))

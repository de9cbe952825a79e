"""Processes killed at any moment: the same command finishes, nothing is lost or done twice."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import finish, start
from family import Family, command_of
from toy_runs import attempts, cells, measured, tiny

from bench.store import Store
from bench.validation import damaged_cells

RUN = (
    *("--set", "generators.toy-slow.nap=0.02", "--set", "device.checkpoint_minutes=0.0005"),
    *("--set", "device.threads=1"),
)
ENGINES: dict[str, tuple[str, ...]] = {"inline": (), "workers": ("--workers", "2")}
TARGETS = {
    "driver": "bench.cli.main",
    "interchange": "interchange",  # its script, or the title that it gives itself
    "pool": "bench.engine.pool",
    "worker": "multiprocessing.spawn",  # or the server that the pool has started before them
    "server": "multiprocessing.spawn",
    "cell": "multiprocessing.forkserver",  # cells look like the server that they are forked from
}
PAIRS = [("inline", "driver"), *(("workers", name) for name in (*TARGETS, "everything"))]
SURVIVED = {"pool", "worker", "server", "cell"}
"""Kills that a driver takes in its stride."""
ORPHANS_END_S = 60


def command(out: Path, engine: str) -> list[object]:
    return tiny(out, "toy-joint,toy-slow", "toy-conv", *RUN, *ENGINES[engine])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A run that nobody disturbed, and the seconds that one took by each engine."""
    seconds = {}
    for engine in ENGINES:
        out = tmp_path_factory.mktemp("undisturbed") / "out"
        since = time.monotonic()
        ran = finish(start(*command(out, engine)))
        assert ran.code == 0, ran.out + ran.err
        seconds[engine] = time.monotonic() - since
    return out, seconds


def kill(family: Family, driver: subprocess.Popen[str], target: str, chance: random.Random) -> str:
    """SIGKILL one kind of process of a run, or all of them; what was killed, in words."""
    members = family.members()
    if target == "driver":
        members = [p for p in members if p.pid == driver.pid]
    elif target != "everything":
        members = [p for p in members if TARGETS[target] in command_of(p)]
        if target == "server":
            members = sorted(members, key=psutil.Process.create_time)[:1]
        members = chance.sample(members, min(1, len(members)))
    told = [f"{p.pid} {command_of(p)[:60]}" for p in members]
    for process in members:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return "; ".join(told) or "nothing: there was none"


def in_its_slow_fit(out: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the run is in the middle of its longest fit."""
    deadline = time.monotonic() + 240
    while not any(
        len(curve.read_text().splitlines()) > 6
        for curve in out.glob("cells/*/work/fit.csv")
        if "toy-slow" in described(curve)
    ):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def disturb_and_finish(
    out: Path, engine: str, target: str, moment_s: float | None, chance: random.Random
) -> str:
    """Kill a run after `moment_s` seconds, by default in its slow fit, and run again: nothing that
    was finished is lost or repeated."""
    family = Family()
    process = family.start(*command(out, engine))
    if moment_s is None:
        in_its_slow_fit(out, process)
    else:
        time.sleep(moment_s)
    killed = kill(family, process, target, chance)
    ran = finish(process)
    if target in SURVIVED:
        assert ran.code == 0, f"{killed}: {ran.out}{ran.err}"
    assert family.ended(ORPHANS_END_S), [command_of(p) for p in family.members()]
    store, done = Store(out), {}
    if (out / "run.json").is_file():
        done = {t: store.result(c.key) for t, c in cells(out).items() if store.is_done(c.key)}
    again = finish(start(*command(out, engine)))
    assert again.code == 0, f"{killed}: {again.out}{again.err}"
    for title, cell in cells(out).items():
        events = attempts(out)[title]
        assert events.count("done") <= 1, f"{killed}: {title} was done twice: {events}"
        if title in done:
            assert store.result(cell.key) == done[title], f"{killed}: {title} is another now"
    return killed


def agree(out: Path, calm: Path) -> None:
    assert measured(out) == measured(calm)
    assert list(damaged_cells(Store(out), list(cells(out).values()))) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "target"),
    [
        ("inline", "driver"),
        ("workers", "everything"),
        *(
            pytest.param("workers", name, marks=pytest.mark.long)
            for name in ("driver", "interchange", "pool", "worker", "server", "cell")
        ),
    ],
)
def test_a_kill_costs_no_finished_cell(
    undisturbed: tuple[Path, dict[str, float]], tmp_path: Path, engine: str, target: str
) -> None:
    if engine == "workers":
        pytest.importorskip("parsl")
    calm, _ = undisturbed
    out = tmp_path / "out"
    killed = disturb_and_finish(out, engine, target, None, random.Random(f"{engine} {target}"))
    assert "nothing" not in killed
    agree(out, calm)


@pytest.mark.long
@pytest.mark.parametrize("n", range(50))
def test_of_fifty_kills_none_costs_a_finished_cell(
    undisturbed: tuple[Path, dict[str, float]], tmp_path: Path, n: int
) -> None:
    """At any moment: also while processes start, and when the run has ended."""
    calm, seconds = undisturbed
    engine, target = PAIRS[n % len(PAIRS)]
    chance = random.Random(f"kill {n}")
    moment, out = chance.uniform(0.0, 1.1 * seconds[engine]), tmp_path / "out"
    killed = disturb_and_finish(out, engine, target, moment, chance)
    print(f"{n}: {engine}, {target} after {moment:.2f} s: {killed}", flush=True)
    agree(out, calm)
    shutil.rmtree(out)


@pytest.mark.slow
def test_a_driver_that_is_asked_to_stop_leaves_checkpoints_and_no_process(
    tmp_path: Path,
) -> None:
    pytest.importorskip("parsl")
    out, family = tmp_path / "out", Family()
    process = family.start(*command(out, "workers"), "--set", "generators.toy-slow.nap=0.2")
    in_its_slow_fit(out, process)
    process.send_signal(signal.SIGTERM)
    ran = finish(process)
    assert ran.code == 130, ran.out + ran.err
    assert family.ended(ORPHANS_END_S)
    title = "fit toy-slow fit"
    assert attempts(out)[title] == ["started", "interrupted"]
    assert (Store(out).work(cells(out)[title].key) / "resume" / "fit.pt").is_file()
    again = finish(start(*command(out, "inline"), "--set", "generators.toy-slow.nap=0.2"))
    assert again.code == 0
    assert attempts(out)[title] == ["started", "interrupted", "started", "done"]


def described(curve: Path) -> str:
    return (curve.parents[1] / "cell.json").read_text()


QUICK = ("run", "--generators", "all", "--segmenters", "all", "--set", "device.threads=1")


@pytest.mark.long
def test_the_quick_run_survives_three_kills(tmp_path: Path) -> None:
    """The true one: five generators, five segmenters, four tasks, on the phantom."""
    calm, out, family = tmp_path / "calm", tmp_path / "out", Family()
    command = (*QUICK, "--workers", "2")
    since = time.monotonic()
    ran = finish(start(*command, "--out", calm), 3600)
    assert ran.code == 0, ran.out + ran.err
    seconds, chance = time.monotonic() - since, random.Random(3)
    for target in ("everything", "driver", "everything"):
        process = family.start(*command, "--out", out)
        moment = seconds * chance.uniform(0.1, 0.4)
        time.sleep(moment)
        known = cells(out)
        done = {t: Store(out).result(c.key) for t, c in known.items() if Store(out).is_done(c.key)}
        killed = kill(family, process, target, chance)
        finish(process)
        assert family.ended(ORPHANS_END_S), [command_of(p) for p in family.members()]
        print(f"{target} after {moment:.0f} s, {len(done)} cells done: {killed}", flush=True)
        assert all(Store(out).result(known[t].key) == result for t, result in done.items())
    again = finish(start(*command, "--out", out), 3600)
    assert again.code == 0, again.out + again.err
    assert max(events.count("done") for events in attempts(out).values()) == 1
    agree(out, calm)

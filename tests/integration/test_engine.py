"""Runs that fail, die, are stopped, meet one another, and are started again."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import finish
from toy_runs import Bench, Spawn, attempts, cells, statuses, tiny

from bench.store import Store


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder in which the data are prepared and arm R is done."""
    from conftest import start

    out = tmp_path_factory.mktemp("prepared") / "out"
    ran = finish(start(*tiny(out, "none")))
    assert ran.code == 0, ran.err
    return out


@pytest.fixture
def out(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "out"))


def table(out: Path, name: str) -> list[dict[str, str]]:
    with (out / "leaderboard" / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_image_only_generators_are_labelled_and_all_cells_end_well(bench: Bench, out: Path) -> None:
    ran = bench(*tiny(out, "toy-plain,toy-joint"))
    assert ran.code == 0, ran.out + ran.err
    assert {status for status, _ in statuses(out).values()} == {"done"}
    generators = {row["generator"]: row for row in table(out, "generators")}
    assert generators["toy-plain"]["label_source"] == "pseudo"
    assert generators["toy-joint"]["label_source"] == "joint"
    assert all(float(row["fid_average"]) > 0 for row in generators.values())
    # The leaderboard is a function of the store alone.
    page = (out / "leaderboard" / "leaderboard.md").read_text()
    shutil.rmtree(out / "leaderboard")
    (out / "records.csv").unlink()
    assert bench("report", out).code == 0
    assert (out / "leaderboard" / "leaderboard.md").read_text() == page
    told = bench("status", out)
    assert f"{len(cells(out))} of {len(cells(out))} cells are done, in " in told.out
    # The same command again does no work.
    before = attempts(out)
    assert bench(*tiny(out, "toy-plain,toy-joint")).code == 0
    assert attempts(out) == before
    assert {tuple(events) for events in before.values()} == {("started", "done")}


def test_r_and_r_plus_s_take_as_many_steps_unless_epochs_are_equal(bench: Bench, out: Path) -> None:
    import pandas as pd

    def steps() -> dict[str, float]:
        records = pd.read_csv(out / "records.csv", keep_default_na=False)
        rows = records[(records["metric"] == "steps") & (records["kind"] == "segment")]
        return {a: float(v) for a, v in zip(rows["arm"], rows["value"], strict=True)}

    assert bench(*tiny(out, "toy-joint")).code == 0
    assert steps() == {"R": 2, "R+S": 2}
    assert (
        bench(*tiny(out, "toy-joint", "toy-conv", "--set", "segmentation.equal=epochs")).code == 0
    )
    assert steps() == {"R": 2, "R+S": 4}


GENERATOR_FAULTS = [
    ("raise", "fit", "RuntimeError: the toy broke"),
    ("memory", "fit", "Out of memory: 37 GiB"),
    ("exit", "fit", "SystemExit: 3"),
    ("state", "fit", "Error"),
    ("nan", "sample", "not finite"),
    ("shape", "sample", "has shape (31, 32, 32), expected the grid (32, 32, 32)"),
    ("few", "sample", "yielded 6 volumes, asked were 7"),
    ("endless", "sample", "yielded 8 volumes, asked were 7"),
    ("label", "sample", "has no label"),
]


@pytest.mark.parametrize(("fault", "kind", "reason"), GENERATOR_FAULTS)
def test_a_generator_that_fails_is_told_and_the_rest_goes_on(
    bench: Bench, out: Path, fault: str, kind: str, reason: str
) -> None:
    arguments = tiny(out, "toy-joint", "toy-conv", "--set", f"generators.toy-joint.fault={fault}")
    ran = bench(*arguments)
    assert ran.code == 1
    assert "Traceback" not in ran.out + ran.err
    known = statuses(out)
    failed = {title: why for title, (status, why) in known.items() if status == "failed"}
    assert [title.split()[0] for title in failed] == [kind]
    assert reason in next(iter(failed.values()))
    blocked = {title: why for title, (status, why) in known.items() if status == "blocked"}
    assert {title.split()[0] for title in blocked} >= {"features", "score", "segment"}
    assert all(reason in why and "needs " in why for why in blocked.values())
    assert known["segment toy-conv liver-only R"][0] == "done"
    row = next(r for r in table(out, "segmentation") if r["generator"] == "toy-joint")
    assert row["status"] == "blocked"
    assert reason in row["reason"]
    page = (out / "leaderboard" / "leaderboard.md").read_text()
    assert "–" in page
    assert reason in page
    told = bench("status", out)
    assert "failed: " in told.out


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise", "RuntimeError: the toy broke"),
        ("exit", "SystemExit: 3"),
        ("nan", "Diverged: "),
        ("shape", "Error"),
    ],
)
def test_a_segmenter_that_fails_leaves_a_dash_and_no_mean(
    bench: Bench, out: Path, fault: str, reason: str
) -> None:
    segmenters = "toy-conv,unet"
    more = [
        "--set",
        f"segmenters.toy-conv.fault={fault}",
        "--set",
        "segmenters.unet.channels=[4,8]",
    ]
    ran = bench(*tiny(out, "toy-joint", segmenters, *more))
    assert ran.code == 1
    rows = {row["segmenter"]: row for row in table(out, "segmentation")}
    assert rows["toy-conv"]["status"] == "failed"
    assert reason in rows["toy-conv"]["reason"]
    assert rows["unet"]["status"] == "done"
    overall = table(out, "overall")
    assert [row["dice_rs"] for row in overall if row["generator"] == "toy-joint"] == [""]


def test_a_failed_cell_is_not_tried_again_unless_asked(
    bench: Bench, out: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    arguments = tiny(out, "toy-joint", "toy-conv", "--set", f"generators.toy-joint.gate={gate}")
    assert bench(*arguments).code == 1
    before = attempts(out)
    assert before["fit toy-joint fit"] == ["started", "failed"]
    assert before["sample toy-joint"] == []
    gate.touch()
    assert bench(*arguments).code == 1
    assert attempts(out) == before
    assert bench(*arguments, "--retry-failed").code == 0
    after = attempts(out)
    assert after["fit toy-joint fit"] == ["started", "failed", "started", "done"]
    assert {t: e for t, e in after.items() if before[t]} == {
        **{t: e for t, e in before.items() if e},
        "fit toy-joint fit": after["fit toy-joint fit"],
    }
    assert {status for status, _ in statuses(out).values()} == {"done"}


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(
    bench: Bench, spawn: Spawn, out: Path, tmp_path: Path
) -> None:
    more = [
        *("--set", "generators.toy-slow.kill_at=30", "--set", "device.checkpoint_minutes=0.00001"),
        *("--set", f"generators.toy-slow.mark={tmp_path / 'mark'}"),
    ]
    arguments = tiny(out, "toy-joint,toy-slow", "toy-conv", *more)
    dead = finish(spawn(*arguments))
    assert dead.code == -signal.SIGKILL
    before = attempts(out)
    assert before["fit toy-slow fit"] == ["started"]
    assert before["sample toy-joint"] == ["started", "done"]
    store, slow = Store(out), cells(out)["fit toy-slow fit"]
    status, reason = store.status(slow.key)
    assert status == "interrupted"
    assert "process" in reason
    again = bench(*arguments)
    assert again.code == 0, again.err
    after = attempts(out)
    assert after["fit toy-slow fit"] == ["started", "started", "done"]
    assert {t: e for t, e in after.items() if before[t] and t != "fit toy-slow fit"} == {
        t: e for t, e in before.items() if e and t != "fit toy-slow fit"
    }
    # It went on from its checkpoint and ended as a run that nobody killed.
    result = store.result(slow.key)
    assert result is not None
    calm = out.with_name("calm")
    shutil.copytree(out, calm)
    shutil.rmtree(calm / "cells" / slow.key[:20])
    assert bench(*[calm if a == out else a for a in arguments]).code == 0
    undisturbed = Store(calm).result(slow.key)
    assert undisturbed is not None
    assert undisturbed["artefacts"] == result["artefacts"]
    assert steps_of(store.work(slow.key) / "fit.csv") == list(range(1, 41))


def steps_of(curve: Path) -> list[int]:
    """The steps that a fit's curve has a loss of, in the order of its rows."""
    rows = [row.split(",") for row in curve.read_text().splitlines()[1:]]
    return [int(step) for step, name, _ in rows if name == "loss/all"]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_the_next_run_goes_on(
    bench: Bench, spawn: Spawn, out: Path, number: signal.Signals
) -> None:
    arguments = tiny(out, "toy-slow", "none", "--set", "generators.toy-slow.nap=0.1")
    process = spawn(*arguments)

    def learning() -> bool:
        slow = [f.parent for f in out.glob("cells/*/cell.json") if "toy-slow/fit" in f.read_text()]
        curves = [f for folder in slow for f in folder.glob("work/fit.csv")]
        return any(len(curve.read_text().splitlines()) >= 4 for curve in curves)

    wait_for(learning, process)
    process.send_signal(number)
    ran = finish(process)
    assert ran.code == 130
    assert "Finished cells are kept. To go on:\n  bench run --plugin " in ran.out
    assert attempts(out)["fit toy-slow fit"] == ["started", "interrupted"]
    slow = Store(out).folder(cells(out)["fit toy-slow fit"].key)
    assert (slow / "work" / "resume" / "fit.pt").is_file()
    assert not (slow / "lock").exists()
    stopped = len(steps_of(slow / "work" / "fit.csv"))
    assert bench(*arguments).code == 0
    assert 1 <= stopped < len(steps_of(slow / "work" / "fit.csv")) == 40
    assert not (slow / "work" / "resume").exists()


@pytest.mark.slow
def test_two_runs_at_once_do_no_cell_twice(spawn: Spawn, tmp_path: Path) -> None:
    out = tmp_path / "new"
    arguments = tiny(out, "toy-plain")
    first, second = spawn(*arguments), spawn(*arguments)
    for ran in (finish(first), finish(second)):
        assert ran.code == 0, ran.err
    events = attempts(out)
    assert {tuple(e) for e in events.values()} == {("started", "done")}


def test_dry_run_of_a_done_run_changes_nothing(bench: Bench, out: Path) -> None:
    def state() -> dict[str, Any]:
        return {str(p): p.stat().st_mtime_ns for p in out.rglob("*")}

    before = state()
    ran = bench(*tiny(out, "toy-joint", "toy-conv", "--dry-run"))
    assert ran.code == 0
    assert state() == before


def test_an_interrupted_run_reports_what_waits_as_waiting(bench: Bench, out: Path) -> None:
    """A cell whose inputs were not made yet has not failed, and is not blocked by a failure."""
    assert bench(*tiny(out, "toy-joint")).code == 0
    run = json.loads((out / "run.json").read_text())
    for value in run["cells"]:
        if value["kind"] in ("fit", "sample", "score") or "R+S" in value["title"]:
            shutil.rmtree(out / "cells" / value["key"][:20])
            (out / "cells" / value["key"][:20]).mkdir()
    known = statuses(out)
    assert known["fit toy-joint fit"][0] == "waiting"
    assert known["segment toy-conv liver-only R+S toy-joint"][0] == "waiting"
    assert known["segment toy-conv liver-only R"][0] == "done"
    assert bench("report", out).code == 0
    assert "which failed" not in (out / "leaderboard" / "leaderboard.md").read_text()

"""What a person is told while cells run, and the time that is left."""

from __future__ import annotations

import io
import math
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli.progress import Estimate, Live, Plain, duration, make_watcher
from bench.plan import Cell, Tags
from bench.reached import Reached, reached
from bench.store import Store


def cell(kind: str, number: int, segmenter: str = "") -> Cell:
    return Cell(kind, {"number": number}, tags=Tags(segmenter=segmenter))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_time_left_is_told_from_cells_of_the_same_network(store: Store) -> None:
    cells = [cell("segment", i, "unet" if i < 3 else "vnet") for i in range(6)]
    estimate = Estimate(cells, {})
    assert math.isnan(estimate.seconds_left())
    estimate.ended(cells[0], 10.0)
    assert estimate.seconds_left() == 50.0, "all five like the one that is known"
    estimate.ended(cells[3], 100.0)
    assert estimate.seconds_left() == 2 * 10 + 2 * 100


def test_a_cell_that_cannot_run_takes_no_time(store: Store) -> None:
    cells = [cell("fit", i) for i in range(3)]
    estimate = Estimate(cells, {})
    estimate.ended(cells[0], 8.0)
    estimate.ended(cells[1], None)
    assert estimate.seconds_left() == 8.0


def test_plain_lines_count_every_cell_and_say_why_one_failed(store: Store) -> None:
    out = io.StringIO()
    cells = [cell("fit", 0), cell("sample", 1), cell("score", 2)]
    watcher = make_watcher(Console(file=out, width=80), cells, store)
    assert type(watcher) is Plain
    with watcher:
        watcher.started(cells[0])
        watcher.step(1, 2, {"loss": 0.5})
        watcher.ended(cells[0], "failed", "no [memory] left")
        watcher.skipped(cells[1], "blocked", "needs fit")
        watcher.skipped(cells[2], "blocked", "needs fit")
    lines = out.getvalue().splitlines()
    assert [line[:5] for line in lines] == ["[1/3]", "[2/3]", "[3/3]"]
    assert "FAILED: no [memory] left" in lines[0]
    assert "BLOCKED: needs fit" in lines[1]


def test_a_terminal_shows_the_step_the_loss_and_the_time_left(store: Store) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    cells = [cell("fit", 0)]
    watcher = make_watcher(console, cells, store)
    assert isinstance(watcher, Live)
    with watcher:
        watcher.started(cells[0])
        watcher.step(3, 4, {"loss/all": 0.25})
        watcher.bars.refresh()
        watcher.ended(cells[0], "done", "")
    shown = out.getvalue()
    assert "3/4" in shown
    assert "loss/all 0.25" in shown
    assert "left" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(float("nan"), "?"), (12.4, "12 s"), (600, "10 min"), (12_000, "3 h 20 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def fitting(store: Store, steps: int = 40) -> Cell:
    """A cell that a worker carries, and its curve after step 12, in the middle of a row."""
    own = {"training": {"steps": steps}}
    found = Cell("fit", {"config": {"autoencoder": own, "sampling": {"steps": 9}}}, tags=Tags("g"))
    folder = store.work(found.key)
    folder.mkdir(parents=True)
    rows = [f"{step},loss/all,{1 / step}\n{step},lr/all,0.1" for step in range(1, 13)]
    (folder / "fit.csv").write_text("\n".join(["step,name,value", *rows, "13,loss/a"]))
    return found


def test_how_far_a_worker_s_fit_is_stands_in_its_curve(store: Store) -> None:
    found = fitting(store)
    at = reached(store, found)
    assert at is not None
    assert (at.step, at.total) == (12, 40)
    assert at.scalars == pytest.approx({"loss/all": 1 / 12})
    (store.work(found.key) / "second.csv").write_text("step,name,value\n5,loss/all,2.0\n")
    again = reached(store, found)
    assert again is not None
    assert (again.step, again.total) == (17, 40)
    assert reached(store, cell("score", 1)) is None
    curve = store.work(found.key) / "fit.csv"
    with curve.open("a") as stream:  # longer than what is read of its end
        stream.writelines(f"\n{step},loss/all,0.5" for step in range(13, 3000))
    long = reached(store, found)
    assert long is not None
    assert long.step == 2998 + 5


@pytest.mark.parametrize("terminal", [True, False])
def test_the_steps_of_workers_are_told(
    store: Store, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.cli.progress.LOOK_S", 0.01)
    monkeypatch.setattr("bench.cli.progress.LOG_S", 0.0)
    out = io.StringIO()
    found = fitting(store)
    console = Console(file=out, width=120, force_terminal=terminal)
    with make_watcher(console, [found], store, workers=2) as watcher:
        watcher.started(found)
        deadline = time.monotonic() + 10
        while "loss/all 0.0833" not in out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        watcher.ended(found, "done", "")
    assert "12/40" in out.getvalue()
    assert "loss/all 0.0833" in out.getvalue()


def test_a_log_tells_of_a_long_cell_now_and_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    out = io.StringIO()
    cells = [cell("fit", 0)]
    with make_watcher(Console(file=out, width=120), cells, store) as watcher:
        watcher.started(cells[0])
        for step in range(1, 41):
            clock[0] += 60
            watcher.step(step, 100, {"loss/all": 0.5})
        watcher.ended(cells[0], "done", "")
    lines = out.getvalue().splitlines()
    steps = [line for line in lines if " step " in line]
    assert [line.split()[2] for line in steps[:2]] == ["6/100", "12/100"]
    assert "loss/all 0.5" in steps[0]
    assert "94 min left" in steps[0].replace("1 h 34 min", "94 min")


def test_the_time_left_goes_by_the_steps_that_were_watched(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that goes on from step 900 of 1000 has not taken its first 900 steps today."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    watcher = make_watcher(Console(file=io.StringIO()), [cell("fit", 0)], store)
    watcher.started(cell("fit", 0))
    for step in (901, 902):
        clock[0] += 10
        watcher.step(step, 1000, {})
    assert watcher.note(cell("fit", 0), Reached(902, 1000)) == "16 min left"


def test_the_time_left_of_a_run_falls_while_a_long_cell_works(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("bench.cli.progress.time.monotonic", lambda: clock[0])
    cells = [cell("fit", i) for i in range(5)]
    watcher = make_watcher(Console(file=io.StringIO()), cells, store)
    watcher.started(cells[0])
    assert math.isnan(watcher._left()), "nothing has ended yet"
    clock[0] += 60
    watcher.ended(cells[0], "done", "")
    watcher.started(cells[1])
    assert watcher._left() == 4 * 60
    clock[0] += 9
    watcher.step(1, 20, {})
    clock[0] += 36
    assert watcher._left() == 19 * 9 - 36 + 3 * 60, "as its first step took"
    watcher.step(5, 20, {})
    assert watcher._left() == 15 * 9 + 3 * 60
    clock[0] += 1000
    assert watcher._left() == 3 * 60, "it should have ended; the others have not begun"


def test_cells_begin_and_end_while_a_thread_looks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.cli.progress.SHOW_S", 0.0)
    cells, failures, over = [cell("fit", i) for i in range(1500)], [], threading.Event()
    watcher = Live(Console(file=io.StringIO(), width=90, force_terminal=True), cells, store)

    def look() -> None:
        try:
            while not over.is_set():
                for one in list(watcher.at_work.values()):
                    watcher.moved(one, Reached(1, 9, {}))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=look)
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        with watcher:
            watcher.started(cells[-1])
            thread.start()
            for one in cells[:300]:
                watcher.started(one)
                watcher.ended(one, "done", "")
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert watcher.done == 300

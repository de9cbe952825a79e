"""What a person is told while cells run, and the time that is left."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli.progress import Estimate, Live, Plain, duration, make_watcher
from bench.plan import Cell, Tags
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

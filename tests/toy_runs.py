"""Small runs of toy plug-ins on phantoms, and what is asked of their folders."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from conftest import TOYS, Ran

from bench.plan import Cell
from bench.store import Store

Bench = Callable[..., Ran]
Spawn = Callable[..., "subprocess.Popen[str]"]
TINY = [
    *("run", "--plugin", TOYS, "--tasks", "liver-only", "--set", "data.cases=10"),
    *("--set", "segmentation.training.steps=2", "--set", "labeller.training.steps=2"),
    *("--set", "labeller.segmenter=toy-conv"),
]


def tiny(out: Path, generators: str, segmenters: str = "toy-conv", *more: object) -> list[object]:
    return [*TINY, "--out", out, "--generators", generators, "--segmenters", segmenters, *more]


def cells(out: Path) -> dict[str, Cell]:
    """The cells of the last run by title."""
    run = json.loads((out / "run.json").read_text())
    return {cell.title: cell for cell in map(Cell.from_json, run["cells"])}


def attempts(out: Path) -> dict[str, list[str]]:
    """What happened to every cell, by title."""
    store = Store(out)
    return {
        title: [row["event"] for row in store.attempts(cell.key)]
        for title, cell in cells(out).items()
    }


def statuses(out: Path) -> dict[str, tuple[str, str]]:
    """Status and reason as the leaderboard is told, by title."""
    from bench.report import cell_rows
    from bench.runs import open_run

    known, rows = cells(out), cell_rows(open_run(out))
    return {t: (row["status"], row["reason"]) for t, row in zip(known, rows, strict=True)}


WALL_TIMES = {"seconds", "seconds_per_volume", "peak_memory_mb"}
"""Metrics that no two runs agree on."""


def measured(out: Path) -> dict[tuple[str, ...], tuple[str, str, str]]:
    """Every record of a run but its wall times: what it is of -> value and interval, as written."""
    values = ("value", "low", "high")
    with (out / "records.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric"] not in WALL_TIMES]
    found = {
        tuple(v for k, v in row.items() if k not in (*values, "seconds")): tuple(
            row[k] for k in values
        )
        for row in rows
    }
    assert len(found) == len(rows) > 0
    return found  # type: ignore[return-value]

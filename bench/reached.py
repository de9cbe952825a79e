"""How far the fit of a cell is, by the curves that it writes: also of one in another process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.few_steps import parts
from bench.plan import Cell
from bench.store import Store

TAIL = 4096
"""Bytes at the end of a curve that hold its last step."""


@dataclass(frozen=True)
class Reached:
    """A step, of how many, and its scalars."""

    step: int
    total: int
    scalars: Mapping[str, float] = field(default_factory=dict)


def reached(store: Store, cell: Cell) -> Reached | None:
    """Where the cell's fit is; None if it has none, or has not begun.

    A fit that trains several times writes a curve for each; its steps are added up.
    """
    total = planned_steps(cell.spec)
    curves = sorted(store.work(cell.key).glob("*.csv"), key=lambda path: path.stat().st_mtime)
    ends = [end for end in map(_end, curves) if end is not None]
    if not total or not ends:
        return None
    step = sum(at for at, _ in ends)
    return Reached(step, max(total, step), ends[-1][1])


def planned_steps(spec: Mapping[str, Any]) -> int:
    """Optimiser steps of all trainings in a cell's specification."""
    return sum(int(part["steps"]) for part in parts(spec, "training").values())


def _end(curve: Path) -> tuple[int, dict[str, float]] | None:
    """The last whole step of a curve, and its losses."""
    with curve.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - TAIL))
        text = stream.read().decode("utf-8", "replace")
    rows = [row.split(",") for row in text.rpartition("\n")[0].splitlines()[1:]]
    whole = [row for row in rows if len(row) == 3]
    if not whole:
        return None
    last = int(whole[-1][0])
    losses = {n: float(v) for s, n, v in whole if int(s) == last and n.startswith("loss/")}
    return last, losses

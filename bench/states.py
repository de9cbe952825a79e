"""How the cells of a run stand: what `bench status` tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

from bench.plan import Cell
from bench.remaining import Estimate
from bench.store import Store

STATUSES = ("done", "running", "failed", "blocked", "interrupted", "damaged", "waiting")


class CellState(TypedDict):
    """One cell of a run."""

    key: str
    title: str
    kind: str
    status: str  # one of STATUSES
    reason: str  # one sentence; "" where there is nothing to say
    seconds: float  # that it took, or that its last try took to fail; else 0
    since: str  # when its last try began or ended, UTC; "" before the first
    host: str  # of its last try
    pid: int


def cell_states(store: Store, cells: Sequence[Cell]) -> list[CellState]:
    """The state of every cell, in the plan's order; "blocked" is what needs a failed one."""
    states, lost = [], dict[str, str]()
    for cell in cells:
        standing, title = store.standing(cell.key), cell.title
        status, reason = str(standing.status), standing.reason
        if status == "done" and store.in_work(cell.key):
            status, reason = "running", "done before, and run again now"
        needs = [lost[key] for key in cell.needs.values() if key in lost]
        if needs and status not in ("done", "running", "failed"):
            status, reason = "blocked", needs[0]
        if status == "failed":
            lost[cell.key] = f"needs {title}, which failed: {reason}"
        elif status == "blocked":
            lost[cell.key] = reason
        states.append(
            CellState(
                key=cell.key,
                title=title,
                kind=cell.kind,
                status=status,
                reason=reason,
                seconds=standing.seconds,
                since=standing.since,
                host=standing.host,
                pid=standing.pid,
            )
        )
    return states


def summary(cells: Sequence[Cell], states: Sequence[CellState]) -> dict[str, Any]:
    """Counts by status, seconds spent on what is done, and seconds left for the rest (or None).

    What is blocked or failed is not among the rest. Seconds left are as one process after another
    would need, by the cells of the same kind and network that are done.
    """
    done = {s["key"]: s["seconds"] for s in states if s["status"] == "done"}
    lost = {s["key"] for s in states if s["status"] in ("failed", "blocked")}
    left = Estimate([cell for cell in cells if cell.key not in lost], done).seconds_left()
    counts = Counter(state["status"] for state in states)
    return {
        "cells": len(states),
        **{status: counts[status] for status in STATUSES},
        "seconds_spent": sum(done.values()),
        "seconds_left": left if left == left else None,
    }

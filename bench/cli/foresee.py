"""What a run says before it starts where it may take over an hour."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.forecast import FREE_VOXELS, Forecast, forecast, to_measure, voxels_to_learn
from bench.remaining import duration

if TYPE_CHECKING:
    from bench.harness import Plan
    from bench.plan import Cell
    from bench.store import Store

BUDGET_S, GPU_BUDGET_S = 60.0, 180.0
"""Of measuring, all together; with a GPU every measurement imports all libraries anew."""
LEAST_S, IMPORTS_S = 2.0, 20.0
"""Of one measurement, at least, and what a GPU's takes beside."""


def foresee(
    plan: Plan, store: Store, workers: int, told: Callable[[str], None] = lambda line: None
) -> str:
    """A sentence on hours, memory and disk; "" for a run of less than an hour.

    Nothing is measured for a run whose fits are short, or of which a fit is done: its progress
    tells the time left from those.
    """
    done = {cell.key for cell in plan.cells if store.is_done(cell.key)}
    cells = [cell for cell in plan.cells if cell.key not in done]
    begun = any(cell.kind in ("fit", "segment") for cell in plan.cells if cell.key in done)
    if begun or voxels_to_learn(plan, cells) < FREE_VOXELS:
        return ""
    start = time.monotonic()
    expected = _measured(plan, cells, told)
    return sentence(expected, max(1, workers), time.monotonic() - start)


def _measured(plan: Plan, cells: Sequence[Cell], told: Callable[[str], None]) -> Forecast:
    from bench.estimate import default_limits, estimate

    config = to_measure(plan)
    limits = default_limits(config, LEAST_S, None)
    budget = GPU_BUDGET_S if limits.gpu else BUDGET_S
    parts = {(c.tags.generator, c.tags.stage) for c in cells if c.kind in ("fit", "sample")}
    share = budget / (len(parts) + len(config.segmenters))
    seconds = max(LEAST_S, share) + (IMPORTS_S if limits.gpu else 0)
    limits = replace(limits, seconds=seconds, until=time.monotonic() + budget)
    rows = estimate(config, plan.data.label_names, limits, plan.plugins, told)
    return forecast(plan, cells, rows)


def sentence(expected: Forecast, workers: int, took_s: float) -> str:
    """The forecast for a person; "" where everything is known and takes less than an hour."""
    hours = expected.total / workers
    if hours < 1 and not expected.unknown:
        return ""
    parts = ", ".join(f"{word} {duration(3600 * h)}" for word, h in expected.hours.items())
    missing = ""
    if expected.unknown:
        missing = (
            f" without {len(expected.unknown)} cells that could not be measured so quickly, the "
            f"first {expected.unknown[0]!r},"
        )
    by = f" by {workers} workers" if workers > 1 else ""
    return (
        f"This run takes about {duration(3600 * hours)}{by}{missing} ({parts or 'nothing measured'}"
        f"), up to {expected.memory_gib:.1f} GiB of memory a cell, and {expected.disk_gb:.2g} GB "
        f"of disk with {expected.checkpoints_gb:.2g} GB more for checkpoints: roughly, from "
        f"{took_s:.0f} s of measuring. bench estimate measures more, --no-estimate nothing."
    )

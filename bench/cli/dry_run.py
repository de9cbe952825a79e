"""What `--dry-run` shows: the cells by kind, and what of them is done already."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.harness import Plan
from bench.report import extractor_text
from bench.store import Store


def show_plan(plan: Plan, out: Path) -> None:
    """Print the plan; nothing is written."""
    console = Console()
    store = Store(out)
    data = plan.data
    held = f", {data.n_held} held-out" if data.n_held else ""
    console.print(
        f"{data.name}: {data.n_train} training, {data.n_val} validation, {data.n_test} test{held} "
        f"cases, grid {'x'.join(map(str, plan.config.data.grid))}; tasks "
        f"{', '.join(plan.config.tasks or [t.name for t in data.tasks])}",
        highlight=False,
        markup=False,
    )
    from dataclasses import asdict

    console.print(f"FID features: {extractor_text(asdict(plan.extractor))}", highlight=False)
    planned = Counter(cell.kind for cell in plan.cells)
    done = Counter(cell.kind for cell in plan.cells if store.is_done(cell.key))
    table = Table("kind", "cells", "done already", title=f"{len(plan.cells)} cells into {out}")
    for kind, count in planned.items():
        table.add_row(kind, str(count), str(done[kind]))
    console.print(table)

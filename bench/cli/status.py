"""`bench status`: what of a run is done, running, failed and why, and waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def status(out: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Show how the cells of a run stand."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from bench.plan import Cell
    from bench.report import read_run
    from bench.store import Store

    console, store = Console(), Store(out)
    cells = [Cell.from_json(value) for value in read_run(out)["cells"]]
    states = {cell.key: store.status(cell.key) for cell in cells}
    table = Table("kind", "done", "running", "failed", "interrupted", "waiting")
    for kind in dict.fromkeys(cell.kind for cell in cells):
        counts = Counter(states[cell.key][0] for cell in cells if cell.kind == kind)
        table.add_row(
            kind,
            *(
                str(counts[name])
                for name in ("done", "running", "failed", "interrupted", "waiting")
            ),
        )
    console.print(table)
    done = sum(state == "done" for state, _ in states.values())
    console.print(f"{done} of {len(cells)} cells are done.", highlight=False)
    for cell in cells:
        state, reason = states[cell.key]
        if state in ("running", "failed", "interrupted"):
            line = f"{state}: {cell.title}" + (f": {reason}" if reason else "")
            console.print(line, highlight=False, markup=False, soft_wrap=True)

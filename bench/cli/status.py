"""`bench status`: what of a run is done, running, failed and why, and how long the rest takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.reading import uncollected

if TYPE_CHECKING:
    from bench.states import CellState


@uncollected()
def status(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with the state of every cell.")
    ] = False,
) -> None:
    """Show how the cells of a run stand.

    Example: bench status runs/phantom-quick
    """
    import json

    from bench.plan import Cell
    from bench.runs import read_run
    from bench.states import cell_states, summary
    from bench.store import Store

    cells = [Cell.from_json(value) for value in read_run(out)["cells"]]
    states = cell_states(Store(out), cells)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **summary(cells, states), "states": states}))
    else:
        _show(summary(cells, states), states)


def _show(told: Mapping[str, Any], states: Sequence[CellState]) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from bench.remaining import duration
    from bench.states import STATUSES

    console = Console()
    shown = [s for s in STATUSES if told[s] or s in ("done", "failed", "waiting")]
    table = Table("kind", *shown)
    for kind in dict.fromkeys(state["kind"] for state in states):
        counts = Counter(state["status"] for state in states if state["kind"] == kind)
        table.add_row(kind, *(str(counts[name]) for name in shown))
    console.print(table)
    for state in states:
        if state["status"] in ("done", "waiting", "blocked"):
            continue
        note = f": {state['reason']}"
        if state["status"] == "running":
            note = f" on {state['host']}, process {state['pid']}, since {state['since']}"
        line = f"{state['status']}: {state['title']}{note}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    left = "?" if told["seconds_left"] is None else duration(told["seconds_left"])
    console.print(
        f"{told['done']} of {told['cells']} cells are done, in "
        f"{duration(told['seconds_spent'])}; {left} left, one cell after another.",
        highlight=False,
    )

"""`bench report`: make the tables anew from whatever is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(out: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Write OUT/records.csv and OUT/leaderboard/ anew and show the tables.

    Example: bench report runs/phantom-quick
    """
    from rich.console import Console

    from bench.report import read_run
    from bench.report import report as render
    from bench.store import Store
    from leaderboard import terminal_tables

    console = Console()
    for table in terminal_tables(render(Store(out), read_run(out)), console.width):
        console.print(table)
    console.print(str(out / "leaderboard" / "leaderboard.md"), highlight=False, soft_wrap=True)

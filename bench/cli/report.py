"""`bench report`: make page, tables and figures anew from whatever is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.reading import uncollected


@uncollected()
def report(
    outs: Annotated[
        list[Path],
        typer.Argument(help="Folder of a run; several make one leaderboard.", metavar="OUT..."),
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the files; by default the run's own, and for several runs a new one "
            "beside the first, named after all.",
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Show volumes, segmentations and training curves.")
    ] = True,
) -> None:
    """Write records.csv and leaderboard/ anew and show the tables.

    Example: bench report runs/a runs/b
    """
    from rich.console import Console

    from bench.report import report as render
    from bench.runs import together
    from leaderboard import terminal_tables

    folder = into or (outs[0] if len(outs) == 1 else beside(outs))
    console = Console()
    for table in terminal_tables(render(together(outs), folder, pictures), console.width):
        console.print(table)
    for name in ("leaderboard.md", "leaderboard.html"):
        console.print(str(folder / "leaderboard" / name), highlight=False, soft_wrap=True)


def beside(outs: list[Path]) -> Path:
    """A folder beside the first run, named after all."""
    return outs[0].resolve().parent / "+".join(out.resolve().name for out in outs)

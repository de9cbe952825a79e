"""`bench show`: the page's tables in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.reading import uncollected


@uncollected()
def show(
    outs: Annotated[
        list[Path],
        typer.Argument(help="Folder of a run; several make one leaderboard.", metavar="OUT..."),
    ],
) -> None:
    """Show every table of a run; plain text when piped; nothing is written.

    Example: bench show runs/phantom-quick
    """
    from rich.console import Console

    from bench.report import read_board
    from bench.runs import together
    from leaderboard.page import page
    from leaderboard.terminal import print_page

    _, board = read_board(together(outs))
    print_page(page(board), Console())

"""`bench compare`: what changed from one run to another, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.reading import uncollected


@uncollected()
def compare(
    before: Annotated[Path, typer.Argument(help="Folder of a run.")],
    after: Annotated[Path, typer.Argument(help="Folder of another run.")],
) -> None:
    """Show what changed from one run to another.

    Example: bench compare runs/a runs/b
    """
    from rich.console import Console

    from bench.report import comparison
    from bench.runs import open_run
    from leaderboard.terminal import print_page

    print_page(comparison(open_run(before), open_run(after)), Console())

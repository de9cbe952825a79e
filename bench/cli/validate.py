"""`bench validate`: is everything that a run left whole, and made in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def validate(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")],
    set_aside: Annotated[
        bool,
        typer.Option(help="Move damaged results to cells/KEY/damaged, so that a run redoes them."),
    ] = False,
) -> None:
    """Read every file of a run's finished cells and compare it with its checksum.

    Warns where cells of one table were made with other library versions, devices or extractors.
    Exit code 1 if anything is damaged.

    Example: bench validate runs/phantom-quick
    """
    from rich.console import Console

    from bench.plan import Cell
    from bench.runs import read_run
    from bench.store import Store
    from bench.validation import damaged_cells, mixtures

    console, store = Console(), Store(out)
    cells = [Cell.from_json(value) for value in read_run(out)["cells"]]

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    count = 0
    for cell, problem in damaged_cells(store, cells):
        count += 1
        aside = set_aside and store.set_aside(cell.key)
        say(f"damaged: {cell.title}: {problem}{' It was set aside.' if aside else ''}")
    for sentence in mixtures(store, cells):
        say(f"warning: {sentence}")
    done = sum(store.is_done(cell.key) for cell in cells)
    say(f"{len(cells)} cells: {done} are done and {count} damaged.")
    if count:
        if not set_aside:
            say("Give --set-aside and run again to have them computed anew.")
        raise typer.Exit(1)

"""`bench clean`: remove what no run on a folder refers to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def clean(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")],
    dry_run: Annotated[bool, typer.Option(help="Show what would go, and remove nothing.")] = False,
    last_only: Annotated[
        bool, typer.Option(help="Keep only what the last run on the folder refers to.")
    ] = False,
) -> None:
    """Remove cells that no run on the folder refers to, and what failed tries left.

    Example: bench clean runs/phantom-quick --dry-run
    """
    import shutil

    from rich.console import Console

    from bench.cleaning import size, unneeded
    from bench.runs import read_run

    console, total = Console(), 0
    read_run(out)  # InputError where there is no run
    for path in unneeded(out, last_only):
        bytes_ = size(path)
        total += bytes_
        line = f"{path.relative_to(out)}  {bytes_ / 1e6:.1f} MB"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
        if not dry_run:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    verb = "would be freed" if dry_run else "were freed"
    console.print(f"{total / 1e6:.1f} MB {verb}.", highlight=False)

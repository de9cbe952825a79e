"""What in a run's folder no run refers to: what `bench clean` removes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from bench.harness import RUNS
from bench.lock import Lock
from bench.plan import Cell
from bench.store import Store

LEFTOVERS = ("artefacts.new", "artefacts.old", "damaged")
_CELL = re.compile("[0-9a-f]{20}")


def referred(out: Path, last_only: bool = False) -> set[str]:
    """Names of the cells' folders that a run on `out` refers to; those of the last, if asked."""
    runs = [out / "run.json"]
    if not last_only:
        runs += sorted((out / RUNS).glob("*.json"))
    cells = (cell for path in runs for cell in json.loads(path.read_text("utf-8"))["cells"])
    return {Store(out).folder(Cell.from_json(cell).key).name for cell in cells}


def unneeded(out: Path, last_only: bool = False) -> Iterator[Path]:
    """Folders that may go: cells of no run, and what failed or damaged tries left of the others.

    A cell that a process works on is left alone, and so is what the store did not make. While a
    folder is given out, its cell is locked.
    """
    kept = referred(out, last_only)
    for folder in sorted(Store(out).cells.iterdir()):
        if not _CELL.fullmatch(folder.name) or not folder.is_dir() or folder.is_symlink():
            continue
        with Lock(folder / "lock") as locked:
            if not locked:
                continue
            if folder.name not in kept:
                yield folder
            else:
                yield from (folder / name for name in LEFTOVERS if (folder / name).is_dir())
    if last_only:
        last = (out / "run.json").read_bytes()
        yield from (path for path in (out / RUNS).glob("*.json") if path.read_bytes() != last)


def size(path: Path) -> int:
    """Bytes in a file or in all files below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

"""The files of a leaderboard."""

from __future__ import annotations

import os
from pathlib import Path

from leaderboard.model import Leaderboard
from leaderboard.page import page


def write(leaderboard: Leaderboard, folder: Path) -> list[Path]:
    """Write ``leaderboard.md`` and the tables as CSV, each in one piece or not at all.

    Args:
        leaderboard: what `leaderboard.build` returned.
        folder: made if it is missing, e.g. ``OUT/leaderboard``.

    Returns:
        The files: ``leaderboard.md``, ``generators.csv``, ``segmentation.csv``, ``overall.csv``.
        In the CSV a missing number is an empty field.
    """
    contents = {
        "leaderboard.md": page(leaderboard),
        "generators.csv": leaderboard.generators.to_csv(index=False, lineterminator="\n"),
        "segmentation.csv": leaderboard.segmentation.to_csv(index=False, lineterminator="\n"),
        "overall.csv": leaderboard.overall.to_csv(index=False, lineterminator="\n"),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [_replace(folder / name, text) for name, text in contents.items()]


def _replace(path: Path, text: str) -> Path:
    """A reader sees the old file or the new one, never a part of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path

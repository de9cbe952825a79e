"""The files of a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leaderboard.figures import DOSE_FIGURE, dose_figure, replace_file
from leaderboard.model import Leaderboard
from leaderboard.page import page

if TYPE_CHECKING:
    import pandas as pd

NAMES = (
    *("generators", "segmentation", "overall"),
    *("companions", "structures", "ranks", "doses", "fits"),
)
"""The frames that are written as CSV."""


def write(leaderboard: Leaderboard, folder: Path) -> list[Path]:
    """Write ``leaderboard.md`` and the tables as CSV, each in one piece or not at all.

    Args:
        leaderboard: what `leaderboard.build` returned.
        folder: made if it is missing, e.g. ``OUT/leaderboard``.

    Returns:
        The files: ``leaderboard.md``, ``generators.csv``, ``segmentation.csv``, ``overall.csv``,
        ``companions.csv``, ``structures.csv``, ``ranks.csv``, ``doses.csv``, ``fits.csv``, and,
        where a run has several doses, ``dose.png``. In the CSV a missing number is an empty field.
    """
    contents: dict[str, str | bytes] = {"leaderboard.md": page(leaderboard)}
    for name in NAMES:
        frame: pd.DataFrame = getattr(leaderboard, name)
        contents[f"{name}.csv"] = frame.to_csv(index=False, lineterminator="\n")
    if len(leaderboard.doses):
        contents[DOSE_FIGURE] = dose_figure(leaderboard)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [replace_file(folder / name, content) for name, content in contents.items()]

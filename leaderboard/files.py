"""The files of a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leaderboard import html, latex, markdown
from leaderboard.figures import FIGURES
from leaderboard.figures.canvas import pdf, png, replace_file
from leaderboard.figures.stills import changes_still, volumes_still
from leaderboard.model import Leaderboard
from leaderboard.page import page
from leaderboard.pictures import CHANGES, NO_PICTURES, VOLUMES, Pictures

if TYPE_CHECKING:
    import pandas as pd

NAMES = (
    *("generators", "segmentation", "overall"),
    *("companions", "structures", "ranks", "doses", "fits", "costs"),
)
"""The frames that are written as CSV."""


def write(leaderboard: Leaderboard, folder: Path, pictures: Pictures = NO_PICTURES) -> list[Path]:
    """Write the page, its tables and its figures, each file in one piece or not at all.

    Args:
        leaderboard: what `leaderboard.build` returned.
        folder: made if it is missing, e.g. ``OUT/leaderboard``.
        pictures: what else the page shows; the files of `Pictures.pairs` lie there already.

    Returns:
        The files: ``leaderboard.html`` and ``leaderboard.md``; ``generators.csv`` and the other
        frames of `NAMES`, a missing number as an empty field; for every table of the page its
        ``NAME.tex``, and ``tables.tex`` with all of them; for every figure ``NAME.png`` and
        ``NAME.pdf``; ``volumes.png`` and ``changes.png``, where there are pictures.
    """
    made = page(leaderboard, pictures)
    contents: dict[str, str | bytes] = {"leaderboard.md": markdown.render(made)}
    for name in NAMES:
        frame: pd.DataFrame = getattr(leaderboard, name)
        contents[f"{name}.csv"] = frame.to_csv(index=False, lineterminator="\n")
    contents |= latex.files(made)
    contents |= _figures(leaderboard, pictures)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images = {name: content for name, content in contents.items() if isinstance(content, bytes)}
    images |= {file: (folder / file).read_bytes() for file in pictures.pairs.values()}
    contents["leaderboard.html"] = html.render(made, images, pictures)
    return [replace_file(folder / name, content) for name, content in contents.items()]


def _figures(leaderboard: Leaderboard, pictures: Pictures) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for name, figure in FIGURES.items():
        if figure.wanted(leaderboard, pictures):
            drawn = figure.draw(leaderboard, pictures)
            contents |= {f"{name}.png": png(drawn), f"{name}.pdf": pdf(drawn)}
    if pictures.rows:
        contents[VOLUMES] = png(volumes_still(pictures.rows))
    if pictures.changes:
        contents[CHANGES] = png(changes_still(pictures.changes))
    return contents

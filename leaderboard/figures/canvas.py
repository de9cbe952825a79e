"""What all figures share: size, colours, and how they are written."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from leaderboard.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
WIDE = 8.0
"""From this ratio of the largest value to the smallest an axis is logarithmic."""

# Okabe and Ito's colours, told apart by colour-blind readers too; black is the zero line's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")
# The same set with the bright ones first: contours lie on greys.
CONTOURS = ("#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#F0E442", "#0072B2")
MARKERS = ("o", "s", "^", "D", "v", "P")  # one fewer: pairs repeat after 42 generators


def colour(place: int) -> str:
    """The colour of the n-th generator, the same in every figure."""
    return COLOURS[place % len(COLOURS)]


def contour_colour(place: int) -> str:
    """The colour of the n-th class's contour."""
    return CONTOURS[place % len(CONTOURS)]


def marker(place: int) -> str:
    """The marker of the n-th generator, the same in every figure."""
    return MARKERS[place % len(MARKERS)]


def plain(text: str, longest: int = 40) -> str:
    """One line of a user's text, which matplotlib would otherwise read as a formula."""
    return one_line(text, longest).replace("$", r"\$")


def canvas(width: float, height: float) -> Figure:
    """A figure in inches, without pyplot: it needs no display and leaves no state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def tidy(axis: Axes) -> None:
    """Frame and ticks that leave the data in front."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.set_axisbelow(True)


def logarithmic(axis: Axes, values: ArrayLike) -> None:
    """A logarithmic x axis of positive values where they spread over it; else it stays linear."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    known = np.asarray(values, np.float64)
    known = known[known > 0]
    if not known.size or known.max() / known.min() < WIDE:
        return
    axis.set_xscale("log")
    few = known.max() / known.min() < 100
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def png(figure: Figure) -> bytes:
    """For a page."""
    return _written(figure, "png")


def pdf(figure: Figure) -> bytes:
    """For a paper; without a date, so that equal figures are equal files."""
    return _written(figure, "pdf")


def _written(figure: Figure, kind: str) -> bytes:
    buffer = BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else None
    figure.savefig(buffer, format=kind, dpi=DPI, facecolor="white", metadata=metadata)
    # What was laid out once is not laid out again for the next kind.
    figure.set_layout_engine("none")
    return buffer.getvalue()


def replace_file(path: Path, content: str | bytes) -> Path:
    """Write a file; a reader sees the old one or the new one, never a part of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path

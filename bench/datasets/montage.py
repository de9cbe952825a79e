"""A picture of a data set: three planes of some cases with the outlines of their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.datasets.prepare import to_ras
from bench.datasets.source import RawCase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLANES = ("axial", "coronal", "sagittal")
# The plane's normal as an axis of (R, A, S), and what its left, right, top and bottom edges are.
_VIEWS = {"axial": (2, "RLAP"), "coronal": (1, "RLSI"), "sagittal": (0, "APSI")}
_WIDTH = 3.0  # of a panel, in inches
_DPI = 110
_PERCENTILES = (0.5, 99.5)  # become black and white
# Okabe and Ito's colours, told apart by colour-blind readers too, on grey.
_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#F0E442", "#0072B2")


class Shown(NamedTuple):
    """One case on its way into a montage."""

    id: str
    case: RawCase


def montage(
    cases: Iterable[Shown],
    label_names: Mapping[int, str],
    tick: Callable[[int], None] = lambda done: None,
) -> Figure:
    """Draw a row for each case; `tick` is called with the number of cases read.

    Planes go through where most labels are, and of those slices through the one with most
    labelled voxels. The patient's right and front are on the left of the picture; one millimetre
    is as long in both directions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = []
    for shown in cases:  # of which the planes alone are kept
        rows.append(_row(shown))
        tick(len(rows))
    tallest = [max(height for *_, (_, height) in panels) for _, panels in rows]
    widest = max(width for _, panels in rows for *_, (width, _) in panels)
    heights = [_WIDTH * height / widest + 0.1 for height in tallest]
    figure = Figure(figsize=(3 * _WIDTH + 1.9, sum(heights) + 0.75), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 3, squeeze=False, gridspec_kw={"height_ratios": heights})
    colours = _colours(label_names)
    for line, (text, panels) in zip(axes, rows, strict=True):
        for axis, plane, (image, label, size) in zip(line, PLANES, panels, strict=True):
            _draw(axis, image, label, size, colours)
            _edges(axis, _VIEWS[plane][1])
        line[0].text(
            -0.04, 0.5, text, transform=line[0].transAxes, ha="right", va="center", fontsize=8
        )
    _legend(figure, label_names, colours)
    top = 0.6 / figure.get_figheight()
    figure.subplots_adjust(0.16, 0.08 / figure.get_figheight(), 0.995, 1 - top, 0.02, 0.03)
    for axis, plane in zip(axes[0], PLANES, strict=True):
        place = axis.get_position(original=True)  # before it shrinks to its scan
        middle = (place.x0 + place.x1) / 2
        figure.text(middle, place.y1, f"{plane}\n", ha="center", va="center", fontsize=10)
    return figure


def write_png(figure: Figure, path: Path) -> None:
    """Write a montage as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, format="png")


Panel = tuple[NDArray[np.float32], NDArray[np.uint8], tuple[float, float]]


def _row(shown: Shown) -> tuple[str, list[Panel]]:
    """A case's text and its planes: image in [0, 1], label, and width and height in mm."""
    image, label, affine = to_ras(shown.case)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = np.percentile(image, _PERCENTILES)
    panels: list[Panel] = []
    for plane in PLANES:
        normal = _VIEWS[plane][0]
        index = _fullest(label, normal)
        grey = np.clip((_plane(image, normal, index) - low) / max(high - low, 1e-9), 0, 1)
        across, up = np.delete(spacing, normal)
        size = (grey.shape[1] * float(across), grey.shape[0] * float(up))
        panels.append((grey, _plane(label, normal, index), size))
    shape = " x ".join(map(str, image.shape))
    millimetres = " x ".join(f"{mm:.3g}" for mm in spacing)
    return f"{_broken(shown.id)}\n{shape}\n{millimetres} mm", panels


def _fullest(label: NDArray[np.uint8], axis: int) -> int:
    """The slice along `axis` with most labels, and of those with most labelled voxels."""
    slices = np.moveaxis(label, axis, 0).reshape(label.shape[axis], -1)
    kinds = [np.count_nonzero(np.bincount(row)[1:]) for row in slices]
    return int(np.lexsort((np.count_nonzero(slices, axis=1), kinds))[-1])


def _plane(volume: NDArray[Any], normal: int, index: int) -> NDArray[Any]:
    """A slice (rows, columns) with superior or anterior up, and the right or the front left."""
    plane: NDArray[Any] = np.take(volume, index, axis=normal).T[::-1, ::-1]
    return plane


def _draw(
    axis: Axes,
    image: NDArray[np.float32],
    label: NDArray[np.uint8],
    size: tuple[float, float],
    colours: Mapping[int, str],
) -> None:
    width, height = size
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    x = (np.arange(image.shape[1]) + 0.5) * width / image.shape[1]
    y = (np.arange(image.shape[0]) + 0.5) * height / image.shape[0]
    for value, colour in colours.items():
        if (label == value).any():
            axis.contour(x, y, label == value, [0.5], colors=[colour], linewidths=1.0)
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_xticks([])
    axis.set_yticks([])


def _edges(axis: Axes, letters: str) -> None:
    """Name the directions of the left, right, top and bottom edges."""
    from matplotlib.patheffects import withStroke

    places = (
        *((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center")),
        *((0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom")),
    )
    for letter, (x, y, across, up) in zip(letters, places, strict=True):
        axis.text(
            *(x, y, letter),
            transform=axis.transAxes,
            ha=across,
            va=up,
            fontsize=8,
            color="yellow",
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def _legend(figure: Figure, names: Mapping[int, str], colours: Mapping[int, str]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, linewidth=2) for colour in colours.values()]
    figure.legend(
        lines,
        [names[value].replace("$", r"\$") for value in colours],  # no formulas
        loc="upper center",
        ncols=min(6, len(lines)),
        frameon=False,
        fontsize=9,
    )


def _colours(names: Mapping[int, str]) -> dict[int, str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    values = [value for value in sorted(names) if value != 0]
    many = [to_hex(colour) for colour in colormaps["tab20"].colors]  # type: ignore[attr-defined]
    palette = _COLOURS if len(values) <= len(_COLOURS) else many
    return {value: palette[k % len(palette)] for k, value in enumerate(values)}


def _broken(text: str, width: int = 16) -> str:
    """Long ids over several lines."""
    plain = text.replace("$", r"\$")
    return "\n".join(plain[i : i + width] for i in range(0, len(plain), width))

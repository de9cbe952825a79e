"""R against R+S: every patient's Dice, and the gains of all pairs of segmenter and generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from leaderboard.figures.canvas import canvas, colour, plain, tidy
from leaderboard.model import Leaderboard
from leaderboard.names import shown_name
from leaderboard.segmentation import is_main

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_APART = 0.22  # of R and R+S from the middle of a segmenter's place
_ANNOTATED = 150
"""Up to so many fields of a panel hold their number."""


def dice_figure(leaderboard: Leaderboard) -> Figure:
    """Dice of every test case under R and R+S: generators down, tasks across, segmenters within.

    A thin line is a patient (mean over the seeds), the thick one the mean.
    """
    cases = leaderboard.cases
    generators, tasks = cases["generator"].unique(), cases["task"].unique()
    segmenters = list(cases["segmenter"].unique())
    width = max(2.3, 0.5 * len(segmenters) + 0.6)
    figure = canvas(width * len(tasks) + 0.8, 1.9 * len(generators) + 0.9)
    axes = figure.subplots(len(generators), len(tasks), squeeze=False, sharex=True, sharey="col")
    for row, generator in zip(axes, generators, strict=True):
        own = cases[cases["generator"] == generator]
        for axis, task in zip(row, tasks, strict=True):
            _paired(axis, own[own["task"] == task], segmenters)
            tidy(axis)
        row[0].set_ylabel(plain(shown_name(generator)), fontsize=9)
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.set_title(plain(task), fontsize=10)
    names = [plain(shown_name(name), 16) for name in segmenters]
    for axis in axes[-1]:
        axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
        axis.set_xlim(-0.5, len(names) - 0.5)
    figure.supylabel("Dice of R (left dot) and R+S (right dot)", fontsize=9)
    return figure


def _paired(axis: Axes, cases: pd.DataFrame, segmenters: list[str]) -> None:
    """A pair of columns of dots for each segmenter, lines from R to R+S."""
    from matplotlib.collections import LineCollection

    lines, means = [], []
    for place, segmenter in enumerate(segmenters):
        own = cases[cases["segmenter"] == segmenter].groupby("case")[["dice_r", "dice_rs"]].mean()
        ends = place - _APART, place + _APART
        lines += [list(zip(ends, pair, strict=True)) for pair in own.to_numpy()]
        if len(own):
            means.append(list(zip(ends, own.mean(), strict=True)))
    axis.add_collection(LineCollection(lines, colors="0.7", linewidths=0.6, zorder=1))
    dots = np.array(lines, dtype=float).reshape(-1, 2, 2)
    for side, shown in enumerate((colour(0), colour(1))):
        axis.plot(*dots[:, side].T, ".", color=shown, markersize=3.5, alpha=0.7, zorder=2)
    axis.add_collection(LineCollection(means, colors="black", linewidths=2.0, zorder=3))
    axis.grid(axis="y", color="0.92")


def gains_figure(leaderboard: Leaderboard) -> Figure:
    """Absolute gain in Dice as a heat map, segmenters by generators, a panel per task.

    ``*`` marks what Table 2 calls significant; hatched fields were not measured.
    """
    main = leaderboard.segmentation[is_main(leaderboard.segmentation)]
    main = main[main["generator"] != ""]
    generators, segmenters = list(main["generator"].unique()), list(main["segmenter"].unique())
    tasks = list(main["task"].unique())
    columns = min(len(tasks), 2 if len(generators) <= 12 else 1)
    rows = -(-len(tasks) // columns)
    size = (0.62 * len(generators) + 0.3, 0.3 * len(segmenters) + 0.3)
    figure = canvas(columns * size[0] + 2.4, rows * size[1] + 1.6)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    most = float(np.nanmax(main["gain_absolute"].abs())) or 1.0
    for axis, task in zip(axes.flat, tasks, strict=False):
        own = main[main["task"] == task].set_index(["segmenter", "generator"])
        wide = own["gain_absolute"].unstack().reindex(index=segmenters, columns=generators)
        marks = own["significant"].unstack().reindex(index=segmenters, columns=generators)
        axis.set_facecolor("0.9")  # where a gain is missing
        # Blue and orange keep apart for colour-blind readers; white is no gain.
        image = axis.imshow(wide, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
        axis.set_title(plain(task), fontsize=10)
        if wide.size <= _ANNOTATED:
            _annotate(axis, wide.to_numpy("float64"), marks.to_numpy() == True, most)  # noqa: E712
        axis.tick_params(labelsize=8, length=0)
    for axis in axes.flat[len(tasks) :]:
        axis.axis("off")
    names = [plain(shown_name(name), 24) for name in generators]
    for axis in axes[-1]:
        axis.set_xticks(range(len(names)), names, rotation=40, ha="right")
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(segmenters)), [plain(shown_name(s), 20) for s in segmenters])
    figure.colorbar(image, ax=axes, shrink=0.9, label="Gain in Dice, R+S − R")
    return figure


def _annotate(axis: Axes, gains: np.ndarray, marks: np.ndarray, most: float) -> None:
    for (row, column), gain in np.ndenumerate(gains):
        if np.isnan(gain):
            axis.text(column, row, "–", ha="center", va="center", fontsize=7)
            continue
        dark = abs(gain) > 0.6 * most
        axis.text(
            column,
            row,
            f"{gain:+.3f}" + ("*" if marks[row, column] else ""),
            ha="center",
            va="center",
            fontsize=6.5,
            color="white" if dark else "black",
        )

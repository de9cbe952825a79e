"""Volumes of structures, every volume a dot: synthetic against real."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leaderboard.figures.canvas import canvas, colour, logarithmic, plain, tidy
from leaderboard.model import REAL, Leaderboard
from leaderboard.names import shown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def structures_figure(leaderboard: Leaderboard) -> Figure:
    """A panel per structure: generators down, volume in ml across; the bar is the median."""
    frame = leaderboard.structure_volumes
    labels = list(frame["label"].unique())
    names = [name for name in frame["generator"].unique() if name != REAL]
    generators = [REAL, *names]
    columns = min(4, len(labels))
    rows = -(-len(labels) // columns)
    figure = canvas(2.2 * columns + 1.4, rows * (0.26 * len(generators) + 0.9))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    spread = np.random.default_rng(0)  # so that equal volumes do not hide each other
    for axis, label in zip(axes.flat, labels, strict=False):
        own = frame[frame["label"] == label]
        for place, generator in enumerate(generators):
            volumes = own.loc[own["generator"] == generator, "volume_ml"].to_numpy("float64")
            present = volumes[volumes > 0]
            shown = "black" if generator == REAL else colour(names.index(generator))
            at = place + spread.uniform(-0.22, 0.22, len(present))
            axis.plot(present, at, ".", color=shown, markersize=4, alpha=0.6)
            if len(present):
                axis.vlines(
                    np.median(present), place - 0.38, place + 0.38, color=shown, linewidth=2
                )
        logarithmic(axis, own["volume_ml"])
        axis.set_title(plain(label), fontsize=9)
        axis.grid(axis="x", color="0.92")
        tidy(axis)
    for axis in axes.flat[len(labels) :]:
        axis.axis("off")
    told = ["real test volumes", *(plain(shown_name(name), 28) for name in names)]
    axes[0, 0].set_yticks(range(len(told)), told)
    axes[0, 0].set_ylim(len(told) - 0.5, -0.5)
    figure.supxlabel("Volume, ml; volumes without the structure left out", fontsize=8)
    return figure

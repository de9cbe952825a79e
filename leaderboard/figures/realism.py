"""FID per plane with its intervals, beside the floor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leaderboard.figures.canvas import canvas, colour, logarithmic, marker, plain, tidy
from leaderboard.model import PLANES, REAL, Leaderboard
from leaderboard.names import shown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fid_figure(leaderboard: Leaderboard) -> Figure:
    """A panel per plane and one for their average: generators down, FID across.

    Bars are the intervals of Table 1; the line is the floor, the band its interval.
    """
    frame = leaderboard.generators
    generators = frame[frame["generator"] != REAL].reset_index(drop=True)
    floor = frame[frame["generator"] == REAL]
    figure = canvas(9.0, 0.3 * len(generators) + 1.3)
    axes = figure.subplots(1, len(PLANES), squeeze=False, sharey=True)[0]
    values = frame[[f"fid_{plane}" for plane in PLANES]].to_numpy("float64")
    for axis, plane in zip(axes, PLANES, strict=True):
        for row in floor.to_dict("records"):
            axis.axvline(row[f"fid_{plane}"], color="black", linewidth=1.0, linestyle="--")
            if not np.isnan(row[f"fid_{plane}_low"]):
                ends = row[f"fid_{plane}_low"], row[f"fid_{plane}_high"]
                axis.axvspan(*ends, color="0.85", zorder=0)
        for place, row in enumerate(generators.to_dict("records")):
            value, low, high = (row[f"fid_{plane}{end}"] for end in ("", "_low", "_high"))
            bars = None if np.isnan(low) else [[value - low], [high - value]]
            axis.errorbar(
                value,
                place,
                xerr=bars,
                color=colour(place),
                marker=marker(place),
                markersize=5,
                capsize=2.5,
                linewidth=1.2,
            )
        logarithmic(axis, values)  # one scale for all planes
        axis.set_title(plane.capitalize(), fontsize=10)
        axis.grid(axis="x", color="0.92")
        tidy(axis)
    names = [plain(shown_name(name)) for name in generators["generator"]]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("FID (lower is better)", fontsize=9)
    return figure

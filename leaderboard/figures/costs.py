"""Cost against quality, of generators and of segmenters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from leaderboard.costs import COSTS, GENERATOR, SEGMENTER
from leaderboard.figures.canvas import canvas, colour, logarithmic, marker, plain, tidy
from leaderboard.model import Leaderboard
from leaderboard.names import shown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_QUALITY = {
    GENERATOR: "FID, average (lower is better)",
    SEGMENTER: "Dice of R, mean over tasks",
}


def costs_figure(leaderboard: Leaderboard) -> Figure:
    """A row for generators and one for segmenters, a panel for each cost that was measured."""
    frame = leaderboard.costs
    kinds = [kind for kind in _QUALITY if shown_costs(frame, kind)]
    widest = max(len(shown_costs(frame, kind)) for kind in kinds)
    figure = canvas(2.3 * widest + 2.2, 2.3 * len(kinds))
    axes = figure.subplots(len(kinds), widest, squeeze=False, sharey="row")
    for row, kind in zip(axes, kinds, strict=True):
        measured = shown_costs(frame, kind)
        own = frame[frame["kind"] == kind]
        own = own.assign(place=range(len(own)))  # the colour of a generator in all figures
        own = own[own["quality"].notna() & (own[measured] > 0).any(axis=1)]
        for axis, cost in zip(row, measured, strict=False):
            for line in own.to_dict("records"):
                axis.plot(
                    line[cost],
                    line["quality"],
                    marker(line["place"]),
                    color=colour(line["place"]),
                    markersize=6,
                    label=plain(shown_name(line["name"]), 24),
                )
            logarithmic(axis, own[cost])
            axis.set_xlabel(COSTS[cost], fontsize=8)
            if axis.get_xscale() == "linear":
                axis.locator_params(axis="x", nbins=4)  # long numbers must not touch
            axis.grid(color="0.92")
            tidy(axis)
        row[0].set_ylabel(_QUALITY[kind], fontsize=8)
        for axis in row[len(measured) :]:
            axis.axis("off")
        handles, labels = row[0].get_legend_handles_labels()
        row[-1].legend(
            handles,
            labels,
            loc="center left",
            bbox_to_anchor=(1.02, 0.5) if len(measured) == widest else (0.0, 0.5),
            frameon=False,
            fontsize=7,
        )
    return figure


def shown_costs(frame: pd.DataFrame, kind: str) -> list[str]:
    """The costs that any model of a kind has beside its quality."""
    own = frame[(frame["kind"] == kind) & frame["quality"].notna()]
    return [cost for cost in COSTS if (own[cost] > 0).any()]

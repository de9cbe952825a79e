"""Training curves: a panel for each stage of a generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from leaderboard.figures.canvas import canvas, colour, plain, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WATCHED = ("val/psnr", "val/dice", "val/loss")
"""What a curve shows of a stage: the first of these that it has, else its losses in training."""

Curves = Mapping[str, pd.DataFrame]  # stage -> step, name, value


def curve_figure(variants: Mapping[str, Curves], columns: int = 3) -> Figure:
    """A panel per stage, a line per variant (or, of one variant, per scalar).

    Args:
        variants: name -> its curves; the name "" is left out of the legend.
        columns: panels beside one another, at most.
    """
    stages = list(dict.fromkeys(stage for curves in variants.values() for stage in curves))
    columns = min(columns, len(stages))
    rows = -(-len(stages) // columns)
    figure = canvas(3.2 * columns, 2.3 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, stage in zip(axes.flat, stages, strict=False):
        place = 0
        for variant, curves in variants.items():
            for name, line in watched(curves.get(stage)):
                told = f"{variant} {name}" if variant else name
                single = "o" if len(line) == 1 else ""
                axis.plot(
                    line["step"],
                    line["value"],
                    single,
                    label=plain(told),
                    color=colour(place),
                    linewidth=1,
                )
                place += 1
        axis.set_title(plain(stage, 60), fontsize=8)
        axis.set_xlabel("step", fontsize=7)
        tidy(axis)
        axis.tick_params(labelsize=7)
        if place:
            axis.legend(fontsize=6, frameon=False)
    for axis in axes.flat[len(stages) :]:
        axis.axis("off")
    return figure


def watched(curve: pd.DataFrame | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """The scalars worth a line: of validation where there are some, else losses, smoothed."""
    if curve is None or not len(curve):
        return
    names = set(curve["name"])
    chosen = [name for name in WATCHED if name in names][:1]
    for name in chosen or sorted(name for name in names if name.startswith("loss/")):
        line = curve[curve["name"] == name]
        if not chosen:
            window = max(1, len(line) // 50)
            smooth = line["value"].rolling(window, min_periods=1).mean()
            line = line.assign(value=smooth).iloc[:: max(1, window // 2)]
        yield name, line

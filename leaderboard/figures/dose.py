"""Gain by dose: Dice over R against the number of real cases and the ratio of synthetic ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from leaderboard.figures.canvas import COLOURS, MARKERS, canvas, plain
from leaderboard.model import Leaderboard
from leaderboard.names import shown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def dose_figure(leaderboard: Leaderboard) -> Figure:
    """Gain in Dice over R against the number of real cases and the ratio, a column per task.

    Points are means over segmenters and test cases, bars their 95 % intervals. S alone is drawn
    hollow: beside the arms with real cases at 0 of them, and in dashes over the ratio.

    Args:
        leaderboard: one whose `doses` are not empty.
    """
    doses = leaderboard.doses
    tasks = list(doses["task"].unique())
    columns = [column for column in ("real", "ratio") if doses[column].nunique() > 1] or ["real"]
    figure = canvas(3.2 * len(tasks) + 2.4, 3.0 * len(columns) + 0.3)
    axes = figure.subplots(len(columns), len(tasks), squeeze=False, sharey=True)
    for row, column in zip(axes, columns, strict=True):
        draw = {"real": _real_panel, "ratio": _ratio_panel}[column]
        for axis, task in zip(row, tasks, strict=True):
            draw(axis, doses[doses["task"] == task], leaderboard)
            axis.set_title(plain(task), fontsize=10)
            axis.axhline(0.0, color="black", linewidth=0.8, zorder=1)
            axis.set_axisbelow(True)
            axis.grid(axis="y", color="0.9")
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("Gain in Dice over R")
        handles = {
            label: handle
            for axis in row
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        row[-1].legend(
            list(handles.values()),
            list(handles),
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            frameon=False,
            fontsize=8,
        )
    return figure


def _real_panel(axis: Axes, doses: pd.DataFrame, leaderboard: Leaderboard) -> None:
    """Gain over the number of real cases, a line per generator and ratio; S alone at 0."""
    every = leaderboard.doses
    counts = sorted(set(every["real"]), key=_count)
    total = leaderboard.info.splits.get("train", leaderboard.info.splits.get("training"))
    names = {"0": "0\n(S alone)", "all": f"all\n({total})" if total else "all"}
    ratios = sorted(set(every.loc[every["arm"] == "R+S", "ratio"]))
    for series in _series(doses, every, "ratio"):
        at = [counts.index(real) + series.shift for real in series.rows["real"]]
        told = f"ratio {series.of:g}" if len(ratios) > 1 and not series.alone else ""
        _draw(axis, at, series, _dash(ratios, series), told)
    axis.set_xticks(range(len(counts)), [names.get(count, plain(count)) for count in counts])
    axis.set_xlim(-0.5, len(counts) - 0.5)
    axis.set_xlabel("Real training cases")


def _ratio_panel(axis: Axes, doses: pd.DataFrame, leaderboard: Leaderboard) -> None:
    """Gain over the ratio of synthetic to real cases, a line per generator and real count."""
    every = leaderboard.doses
    ratios = sorted(set(every["ratio"]))
    mixed = every.loc[every["arm"] == "R+S", "real"]
    counts = sorted(set(mixed), key=_count, reverse=True)
    for series in _series(doses, every, "real"):
        at = [ratios.index(ratio) + series.shift for ratio in series.rows["ratio"]]
        told = f"{series.of} real cases" if len(counts) > 1 and not series.alone else ""
        _draw(axis, at, series, _dash(counts, series), told)
    axis.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axis.set_xlim(-0.5, len(ratios) - 0.5)
    axis.set_xlabel("Synthetic / real cases")


class _Series(NamedTuple):
    """Points of one line."""

    generator: str
    of: Any  # what all its points have in common
    alone: bool  # S without real cases
    rows: pd.DataFrame
    place: int  # of the generator, for its colour
    shift: float  # to the side, so that bars do not hide each other


def _series(doses: pd.DataFrame, every: pd.DataFrame, common: str) -> list[_Series]:
    """The lines of a panel, in the order of the generators."""
    generators = list(every["generator"].unique())
    lines = []
    for index, generator in enumerate(generators):
        shift = 0.3 * ((index + 0.5) / len(generators) - 0.5)
        own = doses[doses["generator"] == generator]
        groups = dict(iter(own.groupby(["arm", common])))
        for arm, value in sorted(groups, key=lambda key: (key[0], _size(key[1]))):
            rows = groups[arm, value]
            order = rows["real"].map(_count) if common == "ratio" else rows["ratio"]
            rows = rows.loc[order.sort_values(kind="stable").index]
            lines.append(_Series(str(generator), value, arm == "S", rows, index, shift))
    return lines


def _size(value: Any) -> float:
    """A ratio, or a number of real cases, as what it is sorted by."""
    return float(_count(value)) if isinstance(value, str) else float(value)


def _dash(values: Sequence[Any], series: _Series) -> str:
    """Of several lines of a generator, each its own dashes; dots where S stands alone."""
    if series.alone:
        return ":"
    return ("-", "--", "-.")[list(values).index(series.of) % 3]


def _draw(axis: Axes, at: Sequence[float], series: _Series, dash: str, told: str) -> None:
    rows = series.rows
    told = "S alone" if series.alone else told
    colour = COLOURS[series.place % len(COLOURS)]
    axis.errorbar(
        at,
        rows["gain"],
        yerr=[rows["gain"] - rows["gain_low"], rows["gain_high"] - rows["gain"]],
        color=colour,
        linestyle=dash,
        marker=MARKERS[series.place % len(MARKERS)],
        markerfacecolor="white" if series.alone else colour,
        markersize=5,
        linewidth=1.3,
        elinewidth=1.0,
        capsize=2.5,
        label=plain(shown_name(series.generator)) + (f", {told}" if told else ""),
    )


def _count(real: str) -> float:
    """A number of real cases, for the order."""
    return float("inf") if real == "all" else float(real)

"""Training curves: a panel for each stage of a generator, or each task of a segmenter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from leaderboard.figures.canvas import canvas, colour, plain, tidy
from leaderboard.model import REAL
from leaderboard.names import display_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from leaderboard.model import Leaderboard

LOSS = "loss/"  # how the names of losses in training begin
WATCHED = {
    "val/psnr": "PSNR in dB, validation",
    "val/dice": "Dice, validation",
    "val/loss": "loss, validation",
}
"""What a curve shows of a stage, and in words: the first of these that was measured at least twice,
else its losses in training."""

Curves = Mapping[str, pd.DataFrame]  # panel -> step, name, value


def curve_figure(
    variants: Mapping[str, Curves], columns: int = 3, one_legend: bool = False
) -> Figure:
    """A panel per stage, a line per variant (or, of one variant, per scalar).

    Args:
        variants: name -> its curves; the name "" is left out of the legend.
        columns: panels beside one another, at most.
        one_legend: of the variants alone, below all panels; the first is black and the others
            have the colours of generators, in all panels.
    """
    stages = list(dict.fromkeys(stage for curves in variants.values() for stage in curves))
    columns = min(columns, len(stages))
    rows = -(-len(stages) // columns)
    figure = canvas(3.2 * columns, 2.3 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, stage in zip(axes.flat, stages, strict=False):
        place, scalars = 0, dict[str, None]()
        names = watched(curves.get(stage) for curves in variants.values())
        for number, (variant, curves) in enumerate(variants.items()):
            for name, line in drawable(curves.get(stage), names):
                scalars[in_words(name)] = None
                told = variant if one_legend else f"{variant} {in_words(name)}".strip()
                single = "o" if len(line) == 1 else ""
                axis.plot(
                    line["step"],
                    line["value"],
                    single,
                    label=plain(told),
                    color=(colour(number - 1) if number else "black")
                    if one_legend
                    else colour(place),
                    linewidth=1,
                )
                place += 1
        axis.set_title(plain(stage, 60), fontsize=8)
        axis.set_xlabel("step", fontsize=7)
        axis.xaxis.get_major_locator().set_params(integer=True)
        tidy(axis)
        axis.tick_params(labelsize=7)
        if one_legend:
            axis.set_ylabel("; ".join(scalars), fontsize=7)
        elif place:
            axis.legend(fontsize=6, frameon=False)
    for axis in axes.flat[len(stages) :]:
        axis.axis("off")
    if one_legend:
        lines = {
            text: line
            for axis in axes.flat
            for line, text in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        names = [plain(variant) for variant in variants if plain(variant) in lines]
        figure.legend(
            [lines[name] for name in names],
            names,
            loc="outside lower center",
            ncols=min(len(names), 2 * columns),
            fontsize=7,
            frameon=False,
        )
    return figure


def segmenter_curve_figure(leaderboard: Leaderboard, curves: Mapping[str, Curves]) -> Figure:
    """A panel per segmenter and task, arm R black, R+S in the colour that its generator has.

    Args:
        curves: "R" and "R+S, " with the generator's name -> panel -> its scalars.
    """
    scored = leaderboard.generators["generator"]
    models = [f"R+S, {display_name(name)}" for name in scored if name != REAL]
    rows = leaderboard.segmentation
    order = dict.fromkeys(["R", *models, *curves])
    panels = [
        f"{display_name(segmenter)}, {task}"
        for segmenter in rows["segmenter"].unique()
        for task in rows["task"].unique()
    ]
    placed = {
        arm: {panel: own[panel] for panel in dict.fromkeys([*panels, *own]) if panel in own}
        for arm in order
        for own in [curves.get(arm, {})]
    }
    return curve_figure(placed, max(1, rows["task"].nunique()), one_legend=True)


def watched(curves: Iterable[pd.DataFrame | None]) -> list[str]:
    """The scalars worth lines in a panel of these curves: the first of validation that one of them
    has twice or more, else losses; where there are none, what was measured once."""
    counts: dict[str, int] = {}
    for curve in curves:
        if curve is not None:
            for name, count in curve.dropna(subset=["value"])["name"].value_counts().items():
                counts[str(name)] = max(counts.get(str(name), 0), int(count))
    seen = [name for name in WATCHED if name in counts]
    losses = sorted(name for name in counts if name.startswith(LOSS))
    return [name for name in seen if counts[name] > 1][:1] or losses or seen[:1]


def drawable(
    curve: pd.DataFrame | None, names: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Those scalars of a curve that it has; losses smoothed."""
    if curve is None:
        return
    for name in names:
        line = curve[curve["name"] == name].dropna(subset=["value"])
        if name.startswith(LOSS):
            window = max(1, len(line) // 50)
            smooth = line["value"].rolling(window, min_periods=1).mean()
            line = line.assign(value=smooth).iloc[:: max(1, window // 2)]
        if len(line):
            yield name, line


def in_words(name: str) -> str:
    """A scalar of a curve as a reader knows it."""
    part = name.removeprefix(LOSS)
    return WATCHED.get(name) or ("loss, training" if part == "all" else f"loss of {part}, training")

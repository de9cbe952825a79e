"""Figures of a leaderboard, PNG and PDF; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from leaderboard.figures.costs import costs_figure, shown_costs
from leaderboard.figures.curves import curve_figure, segmenter_curve_figure
from leaderboard.figures.dice import dice_figure, gains_figure
from leaderboard.figures.dose import dose_figure
from leaderboard.figures.nearest import nearest_pairs
from leaderboard.figures.realism import fid_figure
from leaderboard.figures.structures import structures_figure
from leaderboard.model import REAL, Leaderboard
from leaderboard.pictures import Pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "curve_figure", "dose_figure", "nearest_pairs"]

MOST = 24
"""Generators, or segmenters, that a figure has room for; beyond that the tables tell."""


class Plot(NamedTuple):
    """A figure of the numbers, its words, and whether there is anything to draw."""

    alt: str
    caption: str
    wanted: Callable[[Leaderboard, Pictures], bool]
    draw: Callable[[Leaderboard, Pictures], Figure]


def _few(board: Leaderboard) -> bool:
    models = (board.generators["generator"], board.segmentation["generator"])
    segmenters = board.segmentation["segmenter"].nunique()
    return max(*(names.nunique() for names in models), segmenters) <= MOST


def _scored(board: Leaderboard, _: Pictures) -> bool:
    models = board.generators[board.generators["generator"] != REAL]
    return _few(board) and bool(models["fid_average"].notna().any())


def _compared(board: Leaderboard, _: Pictures) -> bool:
    return _few(board) and len(board.cases) > 0


def _gained(board: Leaderboard, _: Pictures) -> bool:
    return _compared(board, _) and bool(board.segmentation["gain_absolute"].notna().any())


def _costed(board: Leaderboard, _: Pictures) -> bool:
    kinds = board.costs["kind"].unique()
    return _few(board) and any(shown_costs(board.costs, kind) for kind in kinds)


def _panels(pictures: Pictures) -> int:
    """Panels of segmenters' curves; 0 where each fit took one step, which is no curve."""
    curves = [own for arm in pictures.segmenter_curves.values() for own in arm.items()]
    long = any(curve["step"].nunique() > 1 for _, curve in curves)
    return len({panel for panel, _ in curves}) if long else 0


FIGURES = {
    "fid": Plot(
        "FID per plane of each generator with its interval, and the floor",
        "FID of Table 1 per plane: bars are 95 % intervals, the dashed line is the floor (real "
        "training volumes), the band its interval.",
        _scored,
        lambda board, _: fid_figure(board),
    ),
    "structure-volumes": Plot(
        "Volume of each structure in every synthetic and every real volume",
        "Every dot is the structure in one volume, bars are medians.",
        lambda board, _: _few(board) and len(board.structure_volumes) > 0,
        lambda board, _: structures_figure(board),
    ),
    "dice": Plot(
        "Dice of every test case under R and R+S, by segmenter, task and generator",
        "Left dots R, right dots R+S; a thin line is a test case (mean over the seeds), the thick "
        "one the mean.",
        _compared,
        lambda board, _: dice_figure(board),
    ),
    "gains": Plot(
        "Gain in Dice of every pair of segmenter and generator, a panel per task",
        "Absolute gain in Dice as in the table above; * marks what it calls significant. Orange is "
        "a loss, violet a gain.",
        _gained,
        lambda board, _: gains_figure(board),
    ),
    "dose": Plot(
        "Gain in Dice by dose",
        "Points are means over the segmenters, bars 95 % intervals, as in the table above. S alone "
        "is drawn hollow, against the R of all real cases.",
        lambda board, _: len(board.doses) > 0,
        lambda board, _: dose_figure(board),
    ),
    "curves": Plot(
        "Training curves of the stages of each generator",
        "Training of each generator's first seed: a measure of validation where the stage was "
        "validated at least twice, else its losses, smoothed.",
        lambda board, pictures: 0 < len(pictures.curves) <= 2 * MOST,
        lambda board, pictures: curve_figure({"": pictures.curves}),
    ),
    "segmenter-curves": Plot(
        "Training curves of each segmenter and task under R and R+S",
        "Dice of the validation cases while the first seed's segmenters are trained, on R and on "
        "R+S of each generator; where they were validated once, their losses, smoothed.",
        lambda board, pictures: _few(board) and 0 < _panels(pictures) <= 2 * MOST,
        lambda board, pictures: segmenter_curve_figure(board, pictures.segmenter_curves),
    ),
    "costs": Plot(
        "Cost of generators and segmenters against their quality",
        "What the table above has; costs that spread far are on logarithmic axes.",
        _costed,
        lambda board, _: costs_figure(board),
    ),
}
"""Name of the file, without its ending -> the figure, in the order of the page."""

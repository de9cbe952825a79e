"""Dice of R beside R+S, test case by test case."""

from __future__ import annotations

import pandas as pd

from leaderboard.inputs import Inputs, generators_in_order, in_order, places
from leaderboard.model import CASE_COLUMNS, RunInfo

_PAIRED = ["segmenter", "task", "seed", "case"]


def cases_frame(inputs: Inputs, info: RunInfo) -> pd.DataFrame:
    """Every test case that has a value in R and in R+S at the paper's dose: `CASE_COLUMNS`."""
    dice = inputs.dice[(inputs.dice["real"] == "all") & inputs.dice["value"].notna()]
    real = dice.loc[dice["arm"] == "R", [*_PAIRED, "value"]]
    both = dice.loc[
        (dice["arm"] == "R+S") & (dice["ratio"] == 1.0), ["generator", *_PAIRED, "value"]
    ]
    frame = both.merge(real, on=_PAIRED, suffixes=("_rs", "_r"))
    frame = frame.rename(columns={"value_r": "dice_r", "value_rs": "dice_rs"})
    order = {
        "generator": generators_in_order(info, inputs.segment_cells["generator"]),
        "segmenter": in_order(info.segmenters, inputs.segment_cells["segmenter"]),
        "task": in_order(info.tasks, inputs.segment_cells["task"]),
    }
    keys = {column: places(frame[column], names) for column, names in order.items()}
    ranks = frame.assign(**keys)
    index = ranks.sort_values([*order, "seed", "case"], kind="stable").index
    ordered: pd.DataFrame = frame.loc[index, list(CASE_COLUMNS)].reset_index(drop=True)
    return ordered


def largest_changes(cases: pd.DataFrame) -> pd.DataFrame:
    """Of each generator and task the row whose Dice changed most, of the first seed."""
    first = cases[cases["seed"] == cases["seed"].min()]
    change = (first["dice_rs"] - first["dice_r"]).abs()
    most = change.groupby([first["generator"], first["task"]], sort=False).idxmax()
    changed: pd.DataFrame = first.loc[most]
    return changed

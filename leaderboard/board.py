"""From records to the leaderboard."""

from __future__ import annotations

import pandas as pd

from leaderboard.arms import pair_all, read_arms
from leaderboard.cases import cases_frame
from leaderboard.companions import companions_frame, structures_frame, volumes_frame
from leaderboard.costs import costs_frame
from leaderboard.fits import fits_frame
from leaderboard.inputs import Inputs, read_inputs
from leaderboard.model import NOT_MEASURED_COLUMNS, Leaderboard, RunInfo
from leaderboard.ranks import doses_frame, ranks_frame
from leaderboard.realism import generators_frame
from leaderboard.segmentation import overall_frame, segmentation_frame


def build(records: pd.DataFrame, cells: pd.DataFrame, info: RunInfo) -> Leaderboard:
    """Make every table from the records; the order of their rows does not matter.

    Args:
        records: one row per measured value, `bench.records.RECORD_COLUMNS`.
        cells: one row per planned cell, `bench.records.CELL_COLUMNS`; empty shows what was
            measured.
        info: what the run was.

    Raises:
        ValueError: a column is missing, a value is recorded twice, or the records mix extractors,
            protocols, data sets or grids in one table.
    """
    inputs = read_inputs(records, cells)
    arms = read_arms(inputs)
    generators = generators_frame(inputs, info)
    pairs = pair_all(arms)
    segmentation = segmentation_frame(inputs, arms, pairs, info)
    companions = companions_frame(inputs, info)
    fits = fits_frame(inputs, info)
    return Leaderboard(
        info=info,
        generators=generators,
        segmentation=segmentation,
        overall=overall_frame(segmentation),
        not_measured=_not_measured(inputs),
        companions=companions,
        structures=structures_frame(companions),
        ranks=ranks_frame(inputs, arms, pairs, generators, info),
        doses=doses_frame(inputs, arms, pairs, info),
        fits=fits,
        cases=cases_frame(inputs, info),
        costs=costs_frame(inputs, info, fits, generators, segmentation),
        structure_volumes=volumes_frame(inputs, info),
    )


def _not_measured(inputs: Inputs) -> pd.DataFrame:
    others = inputs.cells[~inputs.cells["kind"].isin(["score", "segment"])]
    cells = pd.concat([others, inputs.score_cells, inputs.segment_cells], ignore_index=True)
    holes = cells[(cells["status"] != "done") | (cells["reason"] != "")]
    return holes[list(NOT_MEASURED_COLUMNS)].reset_index(drop=True)

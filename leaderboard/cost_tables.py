"""Costs as text."""

from __future__ import annotations

from leaderboard.costs import GENERATOR, SEGMENTER
from leaderboard.model import Leaderboard
from leaderboard.names import shown_name
from leaderboard.text import TextTable, figures, number, one_line

_KINDS = {GENERATOR: "generator", SEGMENTER: "segmenter"}


def costs(leaderboard: Leaderboard) -> TextTable:
    """A row per generator and segmenter; empty where no cost was recorded."""
    frame = leaderboard.costs
    measured = frame[frame[["hours", "seconds_per_volume", "peak_gib"]].notna().any(axis=1)]
    rows = [
        (
            shown_name(row["name"]),
            _KINDS[row["kind"]],
            figures(row["hours"]),
            figures(row["seconds_per_volume"]),
            number(row["peak_gib"], 2),
            figures(row["millions"]),
            number(row["quality"], 2 if row["kind"] == GENERATOR else 4),
        )
        for row in measured.to_dict("records")
    ]
    devices = sorted({name for told in measured["devices"] for name in told.split(", ") if name})
    return TextTable(
        title="Costs beside quality",
        columns=(
            *("Model", "Kind", "Training, hours", "Sampling, s / volume"),
            *("Peak GiB", "Parameters, M", "FID, or Dice of R"),
        ),
        rows=tuple(rows),
        names=2,
        notes=(
            f"Hours on {one_line(', '.join(devices)) or 'a device that is not recorded'}, of whole "
            "cells: of a generator the sum of its stages (one that two generators need counts for "
            "both), of a segmenter the mean of one training on R. Memory is the largest of any "
            "cell. Quality: of generators the average FID of Table 1, of segmenters the Dice of R, "
            "mean over the tasks. Means over the seeds.",
        ),
    )

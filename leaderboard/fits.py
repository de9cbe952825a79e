"""What generators measured of themselves while they were trained and sampled, as a frame."""

from __future__ import annotations

import pandas as pd

from leaderboard.inputs import Inputs, generators_in_order
from leaderboard.model import FIT_COLUMNS, RunInfo
from leaderboard.names import controls_of

SAMPLING = "sampling"
KINDS = ("fit", "sample")


def fits_frame(inputs: Inputs, info: RunInfo) -> pd.DataFrame:
    """A row per generator, stage, metric and label: `FIT_COLUMNS`; sampling is the last stage.

    A stage that several generators need was trained once: each has its rows, and ``shared`` names
    the others. Controls learn nothing and are left out. Values are means over the seeds done.
    """
    rows = inputs.records[inputs.records["kind"].isin(KINDS) & (inputs.records["metric"] != "")]
    rows = rows.assign(stage=rows["stage"].where(rows["kind"] == "fit", SAMPLING))
    order = generators_in_order(info, [*info.stages, *rows["generator"]])
    parts = [
        _of_generator(rows, info, name) for name in order if name and name not in controls_of(info)
    ]
    if not parts:
        return pd.DataFrame(columns=list(FIT_COLUMNS))
    groups = pd.concat(parts, ignore_index=True).groupby(
        ["generator", "stage", "metric", "label", "shared"], sort=False
    )
    table = groups["value"].agg(value="mean", sd="std", n_seeds="count").reset_index()
    return table[list(FIT_COLUMNS)]


def _of_generator(rows: pd.DataFrame, info: RunInfo, name: str) -> pd.DataFrame:
    """The records of all stages that a generator needs, as they were planned.

    From records alone, without the run that planned them, they are those under its own name.
    """
    planned = info.stages.get(name, ())
    own = rows[(rows["generator"] == name) | rows["cell"].isin(planned)]
    place = {cell: i for i, cell in enumerate(planned)}
    own = own.assign(
        generator=name,
        shared=_shared(own, info, name),
        place=own["cell"].map(lambda cell: place.get(cell, len(place))),
        last=own["stage"] == SAMPLING,
    )
    return own.sort_values(["seed", "last", "place", "stage", "metric", "label"], kind="stable")


def _shared(rows: pd.DataFrame, info: RunInfo, name: str) -> list[str]:
    """The other generators that need each row's cell."""
    return [
        ", ".join(other for other, cells in info.stages.items() if other != name and cell in cells)
        for cell in rows["cell"]
    ]

"""What generators measured of themselves while they were trained and sampled, as a frame."""

from __future__ import annotations

from collections.abc import Sequence

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
    parts = _of_generators(rows, info, [n for n in order if n and n not in controls_of(info)])
    if not len(parts):
        return pd.DataFrame(columns=list(FIT_COLUMNS))
    groups = parts.groupby(["generator", "stage", "metric", "label", "shared"], sort=False)
    table = groups["value"].agg(value="mean", sd="std", n_seeds="count").reset_index()
    return table[list(FIT_COLUMNS)]


def _of_generators(rows: pd.DataFrame, info: RunInfo, names: Sequence[str]) -> pd.DataFrame:
    """The records of all stages that each generator needs, as they were planned.

    From records alone, without the run that planned them, they are those under its own name.
    """
    needed_by: dict[str, list[str]] = {}
    for name, cells in info.stages.items():
        for cell in dict.fromkeys(cells):
            needed_by.setdefault(cell, []).append(name)
    place = {(name, cell): n for name, own in info.stages.items() for n, cell in enumerate(own)}
    rank = {name: n for n, name in enumerate(names)}
    needs = []
    for cell, owner in dict.fromkeys(zip(rows["cell"], rows["generator"], strict=True)):
        users = dict.fromkeys([owner, *needed_by.get(cell, [])])
        for name in filter(rank.__contains__, users):
            shared = ", ".join(other for other in needed_by.get(cell, []) if other != name)
            where = place.get((name, cell), len(place))
            needs.append((cell, owner, name, shared, rank[name], where))
    key = ["cell", "owner"]
    table = pd.DataFrame(needs, columns=[*key, "generator", "shared", "rank", "place"])
    own = rows.rename(columns={"generator": "owner"}).merge(table, on=key)
    own = own.assign(last=own["stage"] == SAMPLING)
    by = ["rank", "seed", "last", "place", "stage", "metric", "label"]
    return own.sort_values(by, kind="stable").reset_index(drop=True)

"""What generators and segmenters cost, beside how good they are."""

from __future__ import annotations

import pandas as pd

from leaderboard.fits import SAMPLING
from leaderboard.inputs import Inputs, in_order
from leaderboard.model import COST_COLUMNS, REAL, RunInfo
from leaderboard.names import controls_of
from leaderboard.segmentation import is_main

GENERATOR, SEGMENTER = "generator", "segmenter"
COSTS = {
    "hours": "Training, hours",
    "seconds_per_volume": "Sampling, s / volume",
    "peak_gib": "Peak memory, GiB",
    "millions": "Parameters, millions",
}
"""Column -> its name on an axis."""
NAN = float("nan")


def costs_frame(
    inputs: Inputs,
    info: RunInfo,
    fits: pd.DataFrame,
    generators: pd.DataFrame,
    segmentation: pd.DataFrame,
) -> pd.DataFrame:
    """A row per generator and per segmenter: `COST_COLUMNS`; controls cost nothing."""
    fid = generators.set_index("generator")["fid_average"].to_dict()
    names = [str(name) for name in fid if name not in controls_of(info) | {REAL}]
    made = inputs.records[inputs.records["kind"].isin(["fit", "sample"])]
    rows = [_generator(name, fits, made, fid[name]) for name in names]
    arms = _trainings(inputs)
    main = segmentation[is_main(segmentation)].drop_duplicates(["segmenter", "task"])
    for name in in_order(info.segmenters, arms["segmenter"]):
        quality = main.loc[main["segmenter"] == name, "dice_r"].mean(skipna=False)
        rows.append(_segmenter(name, arms[arms["segmenter"] == name], quality))
    return pd.DataFrame(rows, columns=list(COST_COLUMNS))


def _generator(
    name: str, fits: pd.DataFrame, records: pd.DataFrame, fid: float
) -> dict[str, object]:
    own = fits[(fits["generator"] == name) & (fits["label"] == "")]
    trained = own[own["stage"] != SAMPLING]
    used = records[records["generator"] == name]
    return {
        "kind": GENERATOR,
        "name": name,
        "hours": _sum(trained, "seconds") / 3600,
        "seconds_per_volume": _sum(own, "seconds_per_volume"),
        "peak_gib": own.loc[own["metric"] == "peak_memory_mb", "value"].max() / 1024,
        "millions": _sum(trained, "parameters") / 1e6,
        "quality": fid,
        "devices": _devices(used),
    }


def _segmenter(name: str, rows: pd.DataFrame, dice: float) -> dict[str, object]:
    values = rows.groupby("metric")["value"]
    mean, most = values.mean(), values.max()
    return {
        "kind": SEGMENTER,
        "name": name,
        "hours": mean.get("seconds", NAN) / 3600,
        "seconds_per_volume": NAN,
        "peak_gib": most.get("peak_memory_mb", NAN) / 1024,
        "millions": most.get("parameters", NAN) / 1e6,
        "quality": dice,
        "devices": _devices(rows),
    }


def _trainings(inputs: Inputs) -> pd.DataFrame:
    """What trainings of R on all real cases recorded of themselves."""
    rows = inputs.records
    arm = (rows["kind"] == "segment") & (rows["arm"] == "R") & (rows["real"] == "all")
    return rows[arm & rows["metric"].isin(["seconds", "peak_memory_mb", "parameters"])]


def _sum(rows: pd.DataFrame, metric: str) -> float:
    """Nan where no row has the metric: 0 would be a measurement."""
    return float(rows.loc[rows["metric"] == metric, "value"].sum(min_count=1))


def _devices(rows: pd.DataFrame) -> str:
    return ", ".join(sorted(set(rows["device"]) - {""}))

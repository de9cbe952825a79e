"""What generators and segmenters cost, beside how good they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    own, used = dict(iter(fits.groupby("generator"))), _devices_by(made, "generator")
    rows = [
        _generator(name, own.get(name, fits.head(0)), used.get(name, ""), fid[name])
        for name in names
    ]
    arms = _trainings(inputs)
    used = _devices_by(arms, "segmenter")
    main = segmentation[is_main(segmentation)].drop_duplicates(["segmenter", "task"])
    for name in in_order(info.segmenters, arms["segmenter"]):
        quality = main.loc[main["segmenter"] == name, "dice_r"].mean(skipna=False)
        rows.append(_segmenter(name, arms[arms["segmenter"] == name], used[name], quality))
    return pd.DataFrame(rows, columns=list(COST_COLUMNS))


def _generator(name: str, fits: pd.DataFrame, devices: str, fid: float) -> dict[str, object]:
    columns = (fits[column].tolist() for column in ("stage", "metric", "label", "value"))
    found: dict[tuple[str, bool], list[float]] = {}  # by metric and whether it is of training
    for stage, metric, label, value in zip(*columns, strict=True):
        if label == "" and not math.isnan(value):
            found.setdefault((metric, stage != SAMPLING), []).append(value)

    def each(metric: str) -> list[float]:
        return [value for trained in (True, False) for value in found.get((metric, trained), [])]

    return {
        "kind": GENERATOR,
        "name": name,
        "hours": _sum(found.get(("seconds", True), [])) / 3600,
        "seconds_per_volume": _sum(each("seconds_per_volume")),
        "peak_gib": max(each("peak_memory_mb"), default=NAN) / 1024,
        "millions": _sum(found.get(("parameters", True), [])) / 1e6,
        "quality": fid,
        "devices": devices,
    }


def _segmenter(name: str, rows: pd.DataFrame, devices: str, dice: float) -> dict[str, object]:
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
        "devices": devices,
    }


def _trainings(inputs: Inputs) -> pd.DataFrame:
    """What trainings of R on all real cases recorded of themselves."""
    rows = inputs.records
    arm = (rows["kind"] == "segment") & (rows["arm"] == "R") & (rows["real"] == "all")
    return rows[arm & rows["metric"].isin(["seconds", "peak_memory_mb", "parameters"])]


def _sum(values: Sequence[float]) -> float:
    """Nan where nothing was measured: 0 would be a measurement."""
    return sum(values) if values else NAN


def _devices_by(rows: pd.DataFrame, column: str) -> dict[str, str]:
    """The devices that the cells of each name ran on."""
    found: dict[str, set[str]] = {}
    for name, device in zip(rows[column].tolist(), rows["device"].tolist(), strict=True):
        found.setdefault(name, set()).add(device)
    return {name: ", ".join(sorted(devices - {""})) for name, devices in found.items()}

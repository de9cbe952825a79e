"""Table 1 as a frame: FID per plane of every generator, beside the floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from leaderboard.inputs import CellEnd, Inputs, ends_by, generators_in_order, outcome
from leaderboard.model import GENERATOR_COLUMNS, PLANES, REAL, RunInfo


def generators_frame(inputs: Inputs, info: RunInfo) -> pd.DataFrame:
    """A row per generator whose FID was asked for, and the floor's last: `GENERATOR_COLUMNS`.

    A value is the mean over all planned seeds, and nan where one of them left a hole.
    """
    names = generators_in_order(info, inputs.score_cells["generator"])
    made = _of_each(inputs.records, ["fit", "sample", "score"])
    upstream = _of_each(inputs.cells, ["fit", "sample"])
    scores, fid = _of_each(inputs.score_cells), _of_each(inputs.fid)
    rows = [_row(name, scores(name), fid(name), made(name), upstream(name)) for name in names]
    frame = pd.DataFrame(rows, columns=list(GENERATOR_COLUMNS))
    floor = frame.loc[frame["generator"] == REAL, "fid_average"]
    frame["floor_average"] = floor.iloc[0] if len(floor) else float("nan")
    return frame.astype({"n_real": "Int64", "n_synthetic": "Int64", "n_seeds": "int64"})


def _of_each(frame: pd.DataFrame, kinds: Sequence[str] = ()) -> Callable[[str], pd.DataFrame]:
    """The rows of a generator, by its name; of some kinds, or of all."""
    rows = frame[frame["kind"].isin(kinds)] if kinds else frame
    own = dict(iter(rows.groupby("generator")))
    return lambda name: own.get(name, rows.head(0))


def _row(
    name: str,
    scores: pd.DataFrame,
    fid: pd.DataFrame,
    records: pd.DataFrame,
    upstream: pd.DataFrame,
) -> dict[str, object]:
    by_seed = _by_seed(fid, "value", scores)
    # No average over planes where one of them is missing.
    by_seed.loc[by_seed.isna().any(axis=1), "average"] = float("nan")
    mean = by_seed.mean(skipna=False)
    spread = by_seed.std(ddof=1, skipna=False)
    # Of several seeds, the mean of their intervals: it is of the volumes, the spread of the seeds.
    ends = {end: _by_seed(fid, end, scores).mean(skipna=False) for end in ("low", "high")}
    status, reason = _status(scores, upstream)
    return {
        "generator": name,
        **{f"fid_{plane}": mean[plane] for plane in PLANES},
        "n_real": _only(fid, "n_real", name),
        "n_synthetic": _only(fid, "n_synthetic", name),
        "extractor": _only(fid, "extractor", name) or "",
        "extractor_sha256": _only(fid, "extractor_sha256", name) or "",
        "protocol": _only(fid, "protocol", name) or "",
        "label_source": _label_source(records),
        "seconds_per_volume": _cost(records, "seconds_per_volume").mean(),
        "peak_memory_mb": _cost(records, "peak_memory_mb").max(),
        "n_seeds": int(by_seed.notna().all(axis=1).sum()),
        "status": status,
        "reason": reason,
        **{f"fid_{plane}_sd": spread[plane] for plane in PLANES},
        **{f"fid_{plane}_{end}": values[plane] for end, values in ends.items() for plane in PLANES},
    }


def _by_seed(fid: pd.DataFrame, column: str, scores: pd.DataFrame) -> pd.DataFrame:
    """A column of the records: planned seeds down, planes across."""
    by_seed = fid.pivot(index="seed", columns="plane", values=column).astype("float64")
    by_seed = by_seed.reindex(index=sorted(set(scores["seed"])), columns=list(PLANES))
    return by_seed.where(np.isfinite(by_seed))


def _status(scores: pd.DataFrame, upstream: pd.DataFrame) -> tuple[str, str]:
    """Where the score is missing, the failed fit or sample is the cause worth printing."""
    told = _ends(scores)
    if any(cell.status != "done" for cell in told):
        told = [*_ends(upstream), *told]
    return outcome(told)


def _ends(cells: pd.DataFrame) -> list[CellEnd]:
    return ends_by(cells, []).get((), [])


def _only(fid: pd.DataFrame, column: str, name: str) -> object:
    """The one value of a column in a row's records; None without a record."""
    values = fid[column].dropna().unique()
    if len(values) > 1:
        raise ValueError(
            f"The FID records of '{name}' mix several values of '{column}' "
            f"({', '.join(map(str, values))}); FID depends on it, so score every seed alike."
        )
    return values[0] if len(values) else None


def _label_source(records: pd.DataFrame) -> str:
    own = records[records["label_source"] != ""]
    scored = own[own["kind"] == "score"]
    return ", ".join(sorted(set((scored if len(scored) else own)["label_source"])))


def _cost(records: pd.DataFrame, metric: str) -> pd.Series[float]:
    own = (records["metric"] == metric) & records["kind"].isin(["fit", "sample"])
    values = records.loc[own, "value"]
    return values.sort_values()  # so that the mean does not depend on the order of the records

"""Table 1 as a frame: FID per plane of every generator, beside the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leaderboard.inputs import CellEnd, Inputs, ends_by, generators_in_order, outcome
from leaderboard.model import GENERATOR_COLUMNS, PLANES, REAL, RunInfo

_MADE_BY = ("fit", "sample")
"""Kinds of the cells that make a generator's volumes."""


class Scored(NamedTuple):
    """One record of an FID."""

    seed: int
    plane: str
    value: float
    low: float
    high: float
    n_real: float
    n_synthetic: float
    extractor: str
    extractor_sha256: str
    protocol: str


def generators_frame(inputs: Inputs, info: RunInfo) -> pd.DataFrame:
    """A row per generator whose FID was asked for, and the floor's last: `GENERATOR_COLUMNS`.

    A value is the mean over all planned seeds, and nan where one of them left a hole.
    """
    ends = {name: own for (name,), own in ends_by(inputs.score_cells, ["generator"]).items()}
    made = ends_by(inputs.cells[inputs.cells["kind"].isin(_MADE_BY)], ["generator"])
    fid, sources, costs = _read_fid(inputs.fid), _label_sources(inputs), _costs(inputs)
    rows = []
    for name in generators_in_order(info, ends):
        status, reason = _status(ends[name], made.get((name,), []))
        row = _fid(fid.get(name, []), ends[name]) | _constants(fid.get(name, []), name)
        row |= {"generator": name, "label_source": sources.get(name, ""), **costs.get(name, {})}
        rows.append(row | {"status": status, "reason": reason})
    frame = pd.DataFrame(rows, columns=list(GENERATOR_COLUMNS))
    floor = frame.loc[frame["generator"] == REAL, "fid_average"]
    frame["floor_average"] = floor.iloc[0] if len(floor) else float("nan")
    costs_of = dict.fromkeys(("seconds_per_volume", "peak_memory_mb"), "float64")
    return frame.astype({"n_real": "Int64", "n_synthetic": "Int64", "n_seeds": "int64", **costs_of})


def _read_fid(fid: pd.DataFrame) -> dict[str, list[Scored]]:
    found: dict[str, list[Scored]] = {}
    fid = fid.astype(dict.fromkeys(("value", "low", "high"), "float64"))
    columns = (fid[column].tolist() for column in ("generator", *Scored._fields))
    for name, *values in zip(*columns, strict=True):
        found.setdefault(name, []).append(Scored(*values))
    return found


def _fid(fid: Sequence[Scored], scores: Sequence[CellEnd]) -> dict[str, object]:
    """FID of each plane over the planned seeds; of several, also how far these are apart."""
    seeds = sorted({cell.seed for cell in scores})
    by_seed = _by_seed(fid, "value", seeds)
    # No average over planes where one of them is missing.
    by_seed[np.isnan(by_seed).any(axis=1), PLANES.index("average")] = np.nan
    spread = by_seed.std(axis=0, ddof=1) if len(seeds) > 1 else np.full(len(PLANES), np.nan)
    row: dict[str, object] = {"n_seeds": int((~np.isnan(by_seed)).all(axis=1).sum())}
    row |= {f"fid_{plane}_sd": float(sd) for plane, sd in zip(PLANES, spread, strict=True)}
    # Of several seeds, the mean of their intervals: it is of the volumes, the spread of the seeds.
    ends = {f"_{end}": _by_seed(fid, end, seeds) for end in ("low", "high")}
    for part, values in {"": by_seed, **ends}.items():
        means = zip(PLANES, values.mean(axis=0), strict=True)
        row |= {f"fid_{plane}{part}": float(mean) for plane, mean in means}
    return row


def _by_seed(fid: Sequence[Scored], part: str, seeds: Sequence[int]) -> NDArray[np.float64]:
    """A part of the records, (n_seeds, n_planes); nan where there is none that is finite."""
    values = np.full((len(seeds), len(PLANES)), np.nan)
    for one in fid:
        if one.seed in seeds:
            values[seeds.index(one.seed), PLANES.index(one.plane)] = getattr(one, part)
    values[~np.isfinite(values)] = np.nan
    return values


def _status(scores: Sequence[CellEnd], made: Sequence[CellEnd]) -> tuple[str, str]:
    """Where the score is missing, the failed fit or sample is the cause worth printing."""
    if any(cell.status != "done" for cell in scores):
        return outcome([*made, *scores])
    return outcome(scores)


def _constants(fid: Sequence[Scored], name: str) -> dict[str, object]:
    """What an FID depends on: the one value of each column in a row's records."""
    row: dict[str, object] = {"extractor": "", "extractor_sha256": "", "protocol": ""}
    for column in ("n_real", "n_synthetic", *row):
        values = dict.fromkeys(getattr(one, column) for one in fid)
        found = [value for value in values if not pd.isna(value)]
        if len(found) > 1:
            raise ValueError(
                f"The FID records of '{name}' mix several values of '{column}' "
                f"({', '.join(map(str, found))}); FID depends on it, so score every seed alike."
            )
        if found:
            row[column] = found[0]
    return row


def _label_sources(inputs: Inputs) -> dict[str, str]:
    """By generator what labelled its volumes: as they were scored, else as they were made."""
    records = inputs.records
    own = records[records["kind"].isin([*_MADE_BY, "score"]) & (records["label_source"] != "")]
    found: dict[str, tuple[set[str], set[str]]] = {}
    columns = (own[column].tolist() for column in ("generator", "kind", "label_source"))
    for name, kind, source in zip(*columns, strict=True):
        found.setdefault(name, (set(), set()))[kind != "score"].add(source)
    return {name: ", ".join(sorted(scored or made)) for name, (scored, made) in found.items()}


def _costs(inputs: Inputs) -> Mapping[str, dict[str, float]]:
    """By generator the mean time of a volume and the most memory of its cells."""
    made = inputs.records[inputs.records["kind"].isin(_MADE_BY)]
    made = made.sort_values("value")  # so that a mean does not depend on the order of the records
    found: dict[str, dict[str, float]] = {}
    for metric, summary in (("seconds_per_volume", "mean"), ("peak_memory_mb", "max")):
        values = made[made["metric"] == metric].groupby("generator")["value"].agg(summary)
        for name, value in values.items():
            found.setdefault(str(name), {})[metric] = float(value)
    return found

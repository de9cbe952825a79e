"""Which records and cells the tables are made of, and which may not share a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.records import CELL_COLUMNS, RECORD_COLUMNS
from leaderboard.model import PLANES, REAL, RunInfo
from leaderboard.names import controls_of

ARM_KEY = ["generator", "segmenter", "task", "arm", "real", "ratio"]
_FID_KEY = ["generator", "seed"]
_DICE_KEY = [*ARM_KEY, "seed"]
_TYPES = {"seed": "int64", "ratio": "float64"}
_METRICS = {
    **dict.fromkeys(
        ("score", "task-score"),
        ("fid", "fid_extrapolated", "kid", "mmd_rbf", "precision", "recall", "density", "coverage"),
    ),
    **dict.fromkeys(
        ("memorise", "task-memorise"),
        (
            *("memorisation_distance", "memorisation_distance_test", "memorisation_ratio"),
            *("near_copies", "near_copies_test", "memorisation_p"),
        ),
    ),
    "diversity": ("ms_ssim",),
    "structures": (
        *("structure_volume_ml", "structure_volume_ks", "structure_volume_p"),
        *("structure_components", "structure_components_p", "structure_absent"),
    ),
    "fidelity": ("label_fidelity", "label_fidelity_shuffled"),
}
_NUMERIC = {*_TYPES, "value", "low", "high", "n_real", "n_synthetic", "seconds"}


class CellEnd(NamedTuple):
    """How one cell ended."""

    seed: int
    status: str
    reason: str


@dataclass(frozen=True)
class Inputs:
    """What the tables are functions of: checked, and of cells that ended well."""

    records: pd.DataFrame
    cells: pd.DataFrame
    fid: pd.DataFrame  # a row per generator, seed and plane; the floor's generator is "real"
    dice: pd.DataFrame  # a row per arm, seed and test case
    scores: pd.DataFrame  # every score of a set of volumes but the FID of a plane in `fid`
    resamples: pd.DataFrame  # replicates of the average FID, `case` the number of the resample
    cases: pd.DataFrame  # every score of a test case, by metric and label; Dice too
    score_cells: pd.DataFrame  # with a reason where a cell left a hole in Table 1
    segment_cells: pd.DataFrame  # with a reason where a cell left a hole in Table 2


def read_inputs(records: pd.DataFrame, cells: pd.DataFrame) -> Inputs:
    """Check and select.

    Raises:
        ValueError: a column of the schema is missing, two records give the same value twice, or
            records that may not stand in one table (two extractors, protocols, data sets, grids).
    """
    added = {"low", "high", "reason"} - set(records.columns)  # by the schema's second version
    records = records.reindex(columns=[*records.columns, *sorted(added)])
    records = _tidy(records, RECORD_COLUMNS, "records").astype({"value": "float64"})
    cells = _tidy(cells, CELL_COLUMNS, "cells")

    of_kind, cells_of = _by_kind(records), _by_kind(cells)
    scored, segmented = of_kind("score"), of_kind("segment")

    fid = scored[(scored["metric"] == "fid") & scored["plane"].isin(PLANES)]
    fid = _of_done_cells(fid, cells_of("score"), _FID_KEY)
    _check_one(fid, ["dataset", "grid", "extractor", "extractor_sha256", "protocol"], "FID")
    _check_unique(fid, [*_FID_KEY, "plane"], "FID")

    dice = segmented[(segmented["metric"] == "dice") & (segmented["label"] == "")]
    dice = _of_done_cells(dice, cells_of("segment"), _DICE_KEY)
    _check_one(dice, ["dataset", "grid"], "Dice")
    _check_unique(dice, [*_DICE_KEY, "case"], "Dice")

    of_cases = segmented[segmented["case"] != ""]
    return Inputs(
        records=records,
        cells=cells,
        fid=fid,
        dice=dice,
        scores=_scores(of_kind, cells_of),
        resamples=_resamples(scored, cells_of("score")),
        cases=_of_done_cells(of_cases, cells_of("segment"), _DICE_KEY),
        score_cells=_audit(cells_of("score"), "score", _FID_KEY, _fid_ends(fid)),
        segment_cells=_audit(cells_of("segment"), "segment", _DICE_KEY, _dice_ends(dice)),
    )


def in_order(asked: Sequence[str], *found: Iterable[str]) -> list[str]:
    """The names found: first those asked for, in that order, then the others as they come."""
    groups = (group.unique() if isinstance(group, pd.Series) else group for group in found)
    names = list(dict.fromkeys(name for group in groups for name in group))
    first = [name for name in dict.fromkeys(asked) if name in names]
    return first + [name for name in names if name not in first]


def places(values: pd.Series[str], names: Sequence[str]) -> NDArray[np.intp]:
    """Place of each value among the names; ValueError if one is none of them."""
    codes = np.asarray(pd.Categorical(values, categories=list(names)).codes, dtype=np.intp)
    if (codes < 0).any():
        raise ValueError(f"{values[codes < 0].iloc[0]!r} is none of {', '.join(names)}.")
    return codes


def generators_in_order(info: RunInfo, *found: Iterable[str]) -> list[str]:
    """`in_order` as the run asked, no generator first, controls after models, the floor last."""
    names, controls = in_order(["", *info.generators], *found), controls_of(info)
    return sorted(names, key=lambda name: (name == REAL, name in controls))


def ends_by(cells: pd.DataFrame, key: Sequence[str]) -> dict[tuple[Any, ...], list[CellEnd]]:
    """How cells ended, by the columns `key`, both in the order of the cells."""
    found: dict[tuple[Any, ...], list[CellEnd]] = {}
    columns = (cells[column].tolist() for column in (*key, *CellEnd._fields))
    for *values, seed, status, reason in zip(*columns, strict=True):
        found.setdefault(tuple(values), []).append(CellEnd(seed, status, reason))
    return found


def outcome(cells: Sequence[CellEnd]) -> tuple[str, str]:
    """Status of several cells taken together (the worst), and the reasons of all that have one."""
    rank = {"failed": 0, "blocked": 1, "waiting": 2}
    states = sorted({c.status for c in cells} - {"done"}, key=lambda status: rank.get(status, 3))
    worst = states[0] if states else "done"
    several = len({cell.seed for cell in cells}) > 1
    reasons = [
        f"seed {cell.seed}: {cell.reason}" if several else cell.reason
        for cell in cells
        if cell.status == worst and cell.reason
    ]
    return worst, "; ".join(dict.fromkeys(reasons))


def _by_kind(frame: pd.DataFrame) -> Callable[[str], pd.DataFrame]:
    """The rows of cells of a kind, by its name."""
    own = dict(iter(frame.groupby("kind", sort=False)))
    return lambda kind: own.get(kind, frame.head(0))


def _scores(
    of_kind: Callable[[str], pd.DataFrame], cells_of: Callable[[str], pd.DataFrame]
) -> pd.DataFrame:
    parts = []
    for kind, metrics in _METRICS.items():
        rows = of_kind(kind)
        rows = _of_done_cells(rows[rows["metric"].isin(metrics)], cells_of(kind), _FID_KEY)
        measure = f"'{kind}'"
        _check_one(rows, ["dataset", "grid", "extractor", "extractor_sha256", "protocol"], measure)
        _check_unique(rows, [*_FID_KEY, "metric", "plane", "label"], measure)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def _resamples(scored: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    rows = _of_done_cells(scored[scored["metric"] == "fid_resample"], cells, _FID_KEY)
    _check_unique(rows, [*_FID_KEY, "plane", "case"], "resampled FID")
    return rows


def _tidy(frame: pd.DataFrame, columns: tuple[str, ...], name: str) -> pd.DataFrame:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(
            f"The table of {name} lacks the columns {', '.join(missing)}; "
            f"make it with bench.records.{name}_frame."
        )
    text = [column for column in columns if column not in _NUMERIC]
    tidy = frame[list(columns)]
    whole = {c for c in text if tidy[c].dtype == "str" and not tidy[c].hasnans}
    # A column of text that is empty throughout may come as one of numbers, all nan.
    mended = [column for column in text if column not in whole]
    tidy = tidy.astype(dict.fromkeys(mended, "object"))
    tidy = tidy.fillna({"seed": 0, "ratio": 0.0, **dict.fromkeys(mended, "")})
    return tidy.astype(_TYPES | dict.fromkeys(mended, "str"))


def _of_done_cells(rows: pd.DataFrame, cells: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Leave out what a cell recorded that has since failed or waits to be run again."""
    done = set(_keys(cells[cells["status"] == "done"], key))
    stale = set(_keys(cells, key)) - done
    if not stale:
        return rows
    return rows[np.array([row not in stale for row in _keys(rows, key)], dtype=bool)]


def _check_one(rows: pd.DataFrame, columns: list[str], measure: str) -> None:
    for column in columns:
        values = sorted(rows[column].unique())
        if len(values) > 1:
            shown = ", ".join(repr(value) for value in values)
            raise ValueError(
                f"The {measure} records mix several values of '{column}' ({shown}), which are not "
                f"comparable in one table; make one leaderboard for each of them."
            )


def _check_unique(rows: pd.DataFrame, key: list[str], measure: str) -> None:
    twice = rows[rows.duplicated(key)]
    if len(twice):
        where = ", ".join(f"{column} {twice[column].iloc[0]!r}" for column in key)
        raise ValueError(
            f"The records hold two values of the {measure} of {where}; remove one of them."
        )


def _audit(
    cells: pd.DataFrame,
    kind: str,
    key: list[str],
    found: Mapping[tuple[Any, ...], tuple[str, str]],
) -> pd.DataFrame:
    """The cells of a kind; one that is done and yet leaves a hole is told by its reason.

    Args:
        found: status and reason by `key`, from the records of each cell. One without a planned cell
            (a table made from ``records.csv`` alone) is given one.
    """
    missing = ("failed", "The cell is done and yet its records are missing; run it again.")
    planned = _keys(cells, key)
    ends = [
        found.get(name, missing) if status == "done" else (status, reason)
        for name, status, reason in zip(
            planned, cells["status"].tolist(), cells["reason"].tolist(), strict=True
        )
    ]
    audited = cells.assign(
        status=[status for status, _ in ends], reason=[reason for _, reason in ends]
    )
    added = list[dict[str, Any]]()
    for values in sorted(found.keys() - set(planned)):
        status, reason = found[values]
        row: dict[str, Any] = {**dict.fromkeys(CELL_COLUMNS, ""), "ratio": 0.0, "seconds": None}
        row |= zip(key, values, strict=True)
        added.append(row | {"kind": kind, "status": status, "reason": reason})
    if added:
        more = pd.DataFrame(added, columns=list(CELL_COLUMNS))
        audited = pd.concat([audited, more], ignore_index=True) if len(audited) else more
    return audited[list(CELL_COLUMNS)].reset_index(drop=True).astype(_TYPES)


def _fid_ends(fid: pd.DataFrame) -> dict[tuple[Any, ...], tuple[str, str]]:
    measured: dict[tuple[Any, ...], tuple[set[str], list[str]]] = {}
    columns = (fid[column].tolist() for column in ("plane", "value", "reason"))
    for name, plane, value, reason in zip(_keys(fid, _FID_KEY), *columns, strict=True):
        planes, reasons = measured.setdefault(name, (set(), []))
        if math.isfinite(value):
            planes.add(plane)
        reasons.append(reason)
    ends = {}
    for name, (planes, reasons) in measured.items():
        lacking = ", ".join(plane for plane in PLANES if plane not in planes)
        why = " ".join(dict.fromkeys(filter(None, reasons)))
        told = f"The FID has no finite value: {lacking}. {why}".strip()
        ends[name] = ("failed", told) if lacking else ("done", "")
    return ends


def _dice_ends(dice: pd.DataFrame) -> dict[tuple[Any, ...], tuple[str, str]]:
    absent = "What the task segments is absent from the reference of every test case."
    counts = dice.groupby(_DICE_KEY, sort=False)["value"].count()
    return {
        name: ("done", "" if count else absent)
        for name, count in zip(counts.index.tolist(), counts.tolist(), strict=True)
    }


def _keys(frame: pd.DataFrame, key: list[str]) -> list[tuple[object, ...]]:
    return list(zip(*(frame[column].tolist() for column in key), strict=True))

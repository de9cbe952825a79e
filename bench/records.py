"""The schema of a record: one measured value, in long form.

``OUT/records.csv`` holds one row per value; the leaderboard is a pure function of it and of the
table of cells (`CELL_COLUMNS`). Empty strings stand where a column does not apply.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2


class Record(TypedDict, total=False):
    """One measured value and what determines it."""

    cell: str  # key of the cell that measured it, first 16 hex digits
    kind: str  # kind of the cell: "fit", "sample", "score", "segment", ...
    dataset: str  # e.g. "phantom", "msd-hippocampus"
    preset: str
    grid: str  # e.g. "32x32x32"
    seed: int
    generator: str  # "" for arm R; "real" for the floor (training against test volumes)
    stage: str  # stage of a generator's fit
    segmenter: str
    task: str
    arm: str  # "R", "R+S" or "S"
    real: str  # real training cases used: "all" or a count
    ratio: float  # synthetic to real; 0 in arm R
    metric: str  # "fid", "dice", "seconds", "seconds_per_volume", "peak_memory_mb", "loss", ...
    plane: str  # "axial", "sagittal", "coronal", "average"; "volume" where no plane is formed
    label: str  # name of the class a per-class value belongs to; "" for the case's value
    case: str  # id of the test case, or number of a resample; "" for a value over a whole set
    value: float  # nan where it cannot be computed; `reason` then says why
    low: float  # ends of the value's 95 % interval, where it has one
    high: float
    reason: str  # why there is no value; "" where there is one
    n_real: int
    n_synthetic: int
    extractor: str  # e.g. "medicalnet-resnet50", "texture" (the offline descriptor)
    extractor_sha256: str  # sha256 of the extractor's weights; "" where it has none
    protocol: str  # how a plane is formed: "reorient" or "2.5d"; "volume" where none is
    label_source: str  # "native", "joint", "pseudo", "real"
    device: str
    seconds: float  # wall time of the cell


RECORD_COLUMNS: tuple[str, ...] = tuple(Record.__annotations__)


class CellRow(TypedDict):
    """One planned cell and how it ended; what makes a "–" in a table and its reason."""

    cell: str
    kind: str
    generator: str
    segmenter: str
    task: str
    arm: str
    real: str
    ratio: float
    seed: int
    status: str  # "done", "failed", "blocked" (something it needs failed), "waiting"
    reason: str  # one sentence; "" when done
    seconds: float


CELL_COLUMNS: tuple[str, ...] = tuple(CellRow.__annotations__)


def records_frame(records: Sequence[Record]) -> pd.DataFrame:
    """The records as a pandas frame with every column of the schema, in its order."""
    return joined_frame([({}, records)])


def joined_frame(cells: Sequence[tuple[Record, Sequence[Record]]]) -> pd.DataFrame:
    """`records_frame` of cells: what is common to all records of one, and these."""
    return _frame(cells, RECORD_COLUMNS)


def cells_frame(rows: Sequence[CellRow]) -> pd.DataFrame:
    """The planned cells as a pandas frame with every column of the schema, in its order."""
    return _frame([({}, rows)], CELL_COLUMNS)


def records_csv(records: pd.DataFrame) -> str:
    """What `DataFrame.to_csv` writes of a `records_frame`, in half its time: a large grid has
    millions of fields."""
    columns: list[list[Any]] = [records[column].tolist() for column in records]
    for place, column in enumerate(records):
        if column in _NUMERIC and records[column].hasnans:
            columns[place] = ["" if value != value else value for value in columns[place]]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(records.columns)
    writer.writerows(zip(*columns, strict=True))
    return stream.getvalue()


def read_records(path: Any) -> pd.DataFrame:
    """Read a ``records.csv``; empty text columns come back as "" and not as nan."""
    import pandas as pd

    text = {column: str for column in RECORD_COLUMNS if column not in _NUMERIC}
    empty = {column: ["", "nan"] for column in _NUMERIC}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)


def _frame(
    groups: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]],
    columns: tuple[str, ...],
) -> pd.DataFrame:
    """A row per row of each group, of which the columns that it lacks are the group's."""
    import numpy as np
    import pandas as pd

    own = {column for _, rows in groups for row in rows for column in row}
    given = {column for common, _ in groups for column in common}
    if unknown := (own | given) - set(columns):
        raise ValueError(
            f"A record has the unknown columns {sorted(unknown)}; add them to the schema in "
            "bench/records.py."
        )
    counts = [len(rows) for _, rows in groups]
    values: dict[str, Any] = {}
    for column in columns:
        text = column not in _NUMERIC
        absent: Any = "" if text else _ZERO.get(column, float("nan"))
        shared = [common.get(column, absent) if column in given else absent for common, _ in groups]
        if not text:
            shared = [absent if value is None else value for value in shared]
        alike = column not in own
        if not alike:
            shared = [
                row.get(column, other)
                for (_, rows), other in zip(groups, shared, strict=True)
                for row in rows
            ]
        found: Any = pd.Series(shared, dtype="str").fillna("").array if text else shared
        if alike:
            found = found.repeat(counts) if text else np.repeat(found, counts)
        values[column] = found
    frame = pd.DataFrame(values, columns=list(columns))
    return frame.fillna(_ZERO)


_ZERO = {"seed": 0, "ratio": 0.0}
_NUMERIC = {"seed", "ratio", "value", "low", "high", "n_real", "n_synthetic", "seconds"}

"""The schema of records and cells, and its way through CSV."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.records import (
    CELL_COLUMNS,
    RECORD_COLUMNS,
    Record,
    cells_frame,
    read_records,
    records_frame,
)

ROWS = [
    Record(metric="dice", value=0.5, case="None", seed=1, ratio=0.5, task="NA", real="6"),
    Record(metric="dice", value=float("nan"), case="nan", label="nan", seed=0),
    Record(metric="fid", value=1e-17, plane="axial", n_real=8, n_synthetic=12, extractor="texture"),
]


def test_a_frame_has_every_column_in_order() -> None:
    frame = records_frame(ROWS)
    assert tuple(frame.columns) == RECORD_COLUMNS
    assert frame["segmenter"].tolist() == ["", "", ""]
    assert frame["seed"].tolist() == [1, 0, 0]
    assert frame["ratio"].tolist() == [0.5, 0.0, 0.0]
    assert tuple(records_frame([]).columns) == RECORD_COLUMNS
    assert tuple(cells_frame([]).columns) == CELL_COLUMNS


def test_records_come_back_from_csv_as_they_were(tmp_path: Path) -> None:
    frame = records_frame(ROWS)
    frame.to_csv(tmp_path / "records.csv", index=False)
    read = read_records(tmp_path / "records.csv")
    assert tuple(read.columns) == RECORD_COLUMNS
    # Text that looks like a missing value is text; numbers keep every digit.
    assert read["case"].tolist() == ["None", "nan", ""]
    assert read["task"].tolist() == ["NA", "", ""]
    assert read["real"].tolist() == ["6", "", ""]
    assert read["value"].tolist()[::2] == [0.5, 1e-17]
    assert read["value"].isna().tolist() == [False, True, False]
    assert read["n_synthetic"].tolist()[2] == 12


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"score.*bench/records.py"):
        records_frame([{"metric": "fid", "score": 1.0}])  # type: ignore[typeddict-unknown-key]

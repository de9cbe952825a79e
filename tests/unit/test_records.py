"""The schema of records and cells, and its way through CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.records import (
    CELL_COLUMNS,
    RECORD_COLUMNS,
    Record,
    cells_frame,
    joined_frame,
    read_records,
    records_csv,
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


AWKWARD = st.one_of(
    st.none(), st.floats(), st.sampled_from([0.1 + 0.2, 1e-17, -0.0, 5.0, 1e300]), st.integers(0, 9)
)


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=3, max_size=3),
    values=st.lists(AWKWARD, min_size=3, max_size=3),
)
def test_the_csv_is_that_of_pandas(texts: list[str], values: list[float | None]) -> None:
    rows: list[Any] = [
        {"metric": "dice", "case": text, "value": value, "n_real": value}
        for text, value in zip(texts, values, strict=True)
    ]
    frame = records_frame(rows)
    assert records_csv(frame) == frame.to_csv(index=False, lineterminator="\n")


def test_what_is_common_to_a_cells_records_stands_in_each_unless_it_has_its_own() -> None:
    cells = [
        (Record(kind="segment", seed=1, seconds=2.0), [Record(metric="dice"), Record(seed=7)]),
        (Record(kind="fit", reason=None), []),  # type: ignore[typeddict-item]
        (Record(kind="score"), [Record(metric="fid", seconds=9.0)]),
    ]
    frame = joined_frame(cells)
    assert frame["kind"].tolist() == ["segment", "segment", "score"]
    assert frame["seed"].tolist() == [1, 7, 0]
    assert frame["metric"].tolist() == ["dice", "", "fid"]
    assert frame["seconds"].tolist() == [2.0, 2.0, 9.0]
    whole = [Record(**{**common, **own}) for common, records in cells for own in records]
    pd.testing.assert_frame_equal(frame, records_frame(whole))
    with pytest.raises(ValueError, match="score"):
        joined_frame([({"score": 1.0}, [])])  # type: ignore[typeddict-unknown-key]


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"score.*bench/records.py"):
        records_frame([{"metric": "fid", "score": 1.0}])  # type: ignore[typeddict-unknown-key]

"""An archive written row by row is the one that numpy writes of all rows at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.rows import write_rows


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 6), d=st.integers(0, 5), slices=st.integers(1, 4))
def test_it_is_byte_for_byte_that_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, n: int, d: int, slices: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(n)
    arrays = {"axial": rng.normal(size=(n, d)), "coronal": rng.normal(size=(n, slices, d))}
    np.savez(folder / "numpy.npz", axial=arrays["axial"], coronal=arrays["coronal"])
    rows = ({name: values[i] for name, values in arrays.items()} for i in range(n))
    write_rows(folder / "rows.npz", n, rows)
    assert (folder / "rows.npz").read_bytes() == (folder / "numpy.npz").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["numpy.npz", "rows.npz"]


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        tracemalloc.start()
        write_rows(tmp_path / f"{n}.npz", n, ({"axial": np.zeros(20_000)} for _ in range(n)))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(200) < peak(5) + 100_000  # 200 rows are 32 MB
    with pytest.raises(ValueError, match="0 rows are to be written"):
        write_rows(tmp_path / "none.npz", 0, [])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"a": np.zeros(2)}], "1 rows came for features.npz; expected 2"),
        ([{"a": np.zeros(2)}] * 3, "3 rows came"),
        ([{"a": np.zeros(2)}, {"a": np.zeros(3)}], "Row 1 of features.npz has another shape"),
        ([{"a": np.zeros(2)}, {"b": np.zeros(2)}], "Row 1 of features.npz has another shape"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    tmp_path: Path, rows: list[dict[str, NDArray[np.float64]]], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        write_rows(tmp_path / "features.npz", 2, rows)
    assert list(tmp_path.iterdir()) == []

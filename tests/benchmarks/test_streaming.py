"""Memory: preparing, sampling and measuring hundreds of volumes takes as much as tens do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from conftest import finish, start
from toy_runs import tiny

from bench.records import read_records

STREAMING = ("prepare", "sample", "label", "features", "structures", "diversity", "fidelity")
"""Kinds of cells that read or write volumes one by one."""
SLACK_MB = 40.0
"""What an allocator and the records of more cases may take."""


def peaks(out: Path, cases: int) -> pd.Series[float]:
    """Peak memory in MB of each kind of cell in a run on that many phantoms of 32³."""
    sizes = ("--set", f"data.cases={cases}", "--set", f"scoring.synthetic={cases}")
    sizes += ("--set", "scoring.resamples=0")  # scores stream nothing, and intervals take long
    ran = finish(start(*tiny(out, "toy-plain,toy-joint", "none", *sizes)), 3 * 3600)
    assert ran.code == 0, ran.out + ran.err
    records = read_records(out / "records.csv")
    memory = records[records["metric"] == "peak_memory_mb"]
    found: pd.Series[float] = memory.groupby("kind")["value"].max()
    return found[[kind for kind in STREAMING if kind in found.index]]


@pytest.mark.long
@pytest.mark.parametrize("cases", [500, 5000])
def test_peak_memory_does_not_grow_with_the_number_of_volumes(tmp_path: Path, cases: int) -> None:
    few, many = peaks(tmp_path / "few", 50), peaks(tmp_path / "many", cases)
    print(pd.DataFrame({50: few, cases: many}).round(0).to_string())
    assert (many - few).max() < SLACK_MB

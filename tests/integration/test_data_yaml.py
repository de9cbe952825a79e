"""`--data FILE.yaml`: a folder with labels, tasks, grid and spacing of one's own."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ran

from bench.datasets.config import DataConfig
from bench.datasets.prepare import prepare
from bench.datasets.source import open_source


@pytest.mark.slow
def test_a_yaml_file_decides_over_the_preset(bench: Callable[..., Ran], tmp_path: Path) -> None:
    phantom = DataConfig(cases=8, grid=(32, 32, 32))
    sets = prepare(open_source(phantom), phantom, tmp_path / "sets")
    for part, volumes in sets.items():
        assert len(volumes) >= 1, part
    sets["train"].export_nifti(tmp_path / "scans")
    (tmp_path / "data.yaml").write_text(
        "source: scans\n"
        "grid: [48, 32, 32]\n"
        "spacing: [6.0, 7.0, 6.0]\n"
        "labels: {1: liver, 2: vein, 3: vein, 4: lesion}\n"
        "tasks:\n"
        "  veins: {vein: [vein]}\n"
        "  both: {vein: [vein], lesion: [lesion]}\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    ran = bench(
        *("run", "--data", tmp_path / "data.yaml", "--generators", "none", "--segmenters", "unet"),
        *("--set", "segmentation.training.steps=1", "--out", out),
    )
    assert ran.code == 0, ran.out + ran.err
    with (out / "records.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric"] == "dice"]
    assert {row["task"] for row in rows} == {"veins", "both"}
    assert {row["label"] for row in rows} == {"", "vein", "lesion"}
    assert {row["grid"] for row in rows} == {"48x32x32"}

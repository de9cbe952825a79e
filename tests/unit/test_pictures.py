"""Pictures of a run's artefacts: the right volumes, and a page that does without damaged ones."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from test_report import RUN

from bench.pictures import read_pictures
from bench.plan import Cell, Tags
from bench.records import Record
from bench.report import read_board, report
from bench.runs import open_run
from bench.store import Store
from bench.volumes import VolumeSetWriter
from leaderboard.pictures import Pictures

GRID = (8, 10, 12)
AFFINE = np.diag([2.0, 1.0, 1.5, 1.0])
LABELS = {0: "background", 3: "liver", 7: "tumour"}  # places 1 and 2
TASK = {"name": "t", "classes": {"tumour": [7]}, "kinds": {"tumour": "lesion"}}

PREPARE = Cell("prepare", {"data": {}, "source": "f"})
FIT = Cell("fit", {}, {"data": PREPARE.key}, Tags(generator="g", stage="g/net"))
SAMPLE = Cell("sample", {"n": 2}, {"data": PREPARE.key}, Tags("g", label_source="pseudo"))
LABEL = Cell("label", {}, {"synthetic": SAMPLE.key}, Tags("g", label_source="pseudo"))
REAL = Cell("segment", {"task": TASK}, {}, Tags("", "", "unet", "t", "R", "all"))
BOTH = Cell(
    "segment",
    {"task": TASK, "s": 1},
    {"synthetic": SAMPLE.key},
    Tags("g", "", "unet", "t", "R+S", "all", 1.0, 0, "pseudo"),
)
CELLS = (PREPARE, FIT, SAMPLE, LABEL, REAL, BOTH)
DICE = {REAL.key: (0.5, 0.6, 0.7), BOTH.key: (0.55, 0.1, 0.8)}  # case-1 changes most


def box(value: int, low: int) -> np.ndarray:
    label = np.zeros(GRID, np.uint8)
    label[low : low + 3, 2:6, 2:6] = value
    return label


def write_set(folder: Path, name: str, count: int, labelled: bool = True) -> None:
    with VolumeSetWriter(folder, GRID, LABELS) as writer:
        for i in range(count):
            image = np.full(GRID, (i + 1) / 10, np.float32)
            writer.append(f"{name}-{i}", image, box(7, i) if labelled else None, AFFINE)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished run of a generator without labels of its own."""
    store = Store(tmp_path / "out")
    store.prepare_folder()
    for cell in CELLS:
        store.add(cell)
        with store.attempt(cell.key) as fresh:
            if cell is PREPARE:
                for part in ("train", "val", "test"):
                    write_set(fresh / part, "case", 3)
            if cell is SAMPLE:
                write_set(fresh / "synthetic", "g", 5, labelled=False)
            if cell is FIT:
                curve = store.work(cell.key) / "fit.csv"
                curve.write_text("step,name,value\n1,val/loss,2\n2,val/loss,1\n")
            if cell is LABEL:
                np.save(fresh / "labels.npy", np.stack([box(3, i) for i in range(5)]))
            if cell in (REAL, BOTH):
                top = 0.5 if cell is REAL else 0.7
                curve = store.work(cell.key) / "fit.csv"
                curve.write_text(
                    f"step,name,value\n1,loss/all,2\n4,val/dice,.1\n8,val/dice,{top}\n"
                )
                maps = np.stack([box(1, i + (cell is BOTH)) for i in range(3)])
                np.savez(
                    fresh / "predictions.npz", predictions=maps, ids=["case-0", "case-1", "case-2"]
                )
            records = [
                Record(metric="dice", case=f"case-{i}", value=value)
                for i, value in enumerate(DICE.get(cell.key, ()))
            ]
            facts = {"seconds": 1.0, "environment": {"device": "cpu"}}
            store.finish(cell.key, fresh, records, facts)
    run = {**RUN, "cells": [cell.to_json() for cell in CELLS], "controls": []}
    (store.out / "run.json").write_text(json.dumps(run))
    return store.out


def read(out: Path, folder: Path) -> Pictures:
    runs = [open_run(out)]
    return read_pictures(runs, read_board(runs)[1].cases, folder)


def test_generators_stand_beside_as_many_real_volumes(out: Path, tmp_path: Path) -> None:
    shown = read(out, tmp_path)
    assert shown.left_out == ()
    assert [row.title for row in shown.rows] == ["real test volumes", "g"]
    real, made = shown.rows
    assert len(real.volumes) == len(made.volumes) == 3  # the test set has no more
    assert real.classes == made.classes == ("liver", "tumour")
    second = made.volumes[1]
    assert second.name == "g-1"
    assert second.spacing == (2.0, 1.0, 1.5)
    assert np.unique(second.image) == [51]  # 0.2 of 255
    # Pseudo labels, by the place of their name.
    np.testing.assert_array_equal(second.labels["labels"], box(1, 1))
    np.testing.assert_array_equal(real.volumes[2].labels["labels"], box(2, 2))


def test_the_largest_change_stands_beside_the_ground_truth(out: Path, tmp_path: Path) -> None:
    (row,) = read(out, tmp_path).changes
    assert row.title == "g, U-Net, t: case-1"
    assert row.classes == ("tumour",)
    (volume,) = row.volumes
    assert list(volume.labels) == ["ground truth", "R, Dice 0.600", "R+S, Dice 0.100"]
    for labels, low in zip(volume.labels.values(), (1, 1, 2), strict=True):
        np.testing.assert_array_equal(labels, box(1, low))


def test_curves_are_read(out: Path, tmp_path: Path) -> None:
    curves = read(out, tmp_path).curves
    assert list(curves) == ["g: net"]
    assert list(curves["g: net"]["value"]) == [2, 1]


def test_curves_of_segmenters_stand_by_arm_and_task(out: Path, tmp_path: Path) -> None:
    curves = read(out, tmp_path).segmenter_curves
    assert {arm: list(own) for arm, own in curves.items()} == {
        "R": ["U-Net, t"],
        "R+S, g": ["U-Net, t"],
    }
    assert list(curves["R+S, g"]["U-Net, t"]["value"]) == [2, 0.1, 0.7]
    assert list(curves["R"]["U-Net, t"]["step"]) == [1, 4, 8]


def test_a_report_needs_no_torch(out: Path) -> None:
    code = (
        "import sys; from bench.cli.main import app; "
        "app(['report', sys.argv[1]], standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, out], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    page = (out / "leaderboard" / "leaderboard.html").read_text()
    assert 'id="viewer-volumes"' in page
    assert 'id="viewer-changes"' in page
    assert "g, U-Net, t: case-1" in page
    for name in ("volumes.png", "changes.png", "curves.pdf", "dice.pdf", "table2-g.tex"):
        assert (out / "leaderboard" / name).is_file(), name


def test_without_pictures_nothing_but_records_is_read(out: Path) -> None:
    for cell in CELLS:
        shutil.rmtree(Store(out).artefacts(cell.key))
        shutil.rmtree(Store(out).work(cell.key))
    report([open_run(out)], out, pictures=False)
    page = (out / "leaderboard" / "leaderboard.html").read_text()
    assert "viewer-" not in page
    assert 'class="caution"' in page  # quick ranks nothing
    assert page.count('role="note"') == 2  # that, and the run's own note
    assert (out / "leaderboard" / "dice.png").is_file()


@pytest.mark.parametrize(
    ("cell", "file", "lost"),
    [
        (SAMPLE, "synthetic/images.npy", "No pictures of g: "),
        (LABEL, "labels.npy", "No pictures of g: "),
        (PREPARE, "test/labels.npy", "No pictures of real volumes: "),
        (BOTH, "predictions.npz", "No segmentation of case-1 by unet with g: "),
    ],
)
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_what_is_damaged_is_left_out_and_told(
    out: Path, cell: Cell, file: str, lost: str, damage: str
) -> None:
    path = Store(out).artefacts(cell.key) / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    if damage == "gone":
        shutil.rmtree(Store(out).artefacts(cell.key))
    report([open_run(out)], out)
    page = (out / "leaderboard" / "leaderboard.html").read_text()
    told = re.findall(r'<p class="caution" role="note">(.*?)</p>', page)
    assert any(text.startswith(lost) for text in told), told
    assert "0.6000" in page  # R's mean: the numbers are all there
    assert ('id="viewer-changes"' in page) == (cell in (SAMPLE, LABEL))

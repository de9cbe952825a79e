"""The records that a segment cell makes of its predictions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bench.cells.segment import case_records
from bench.datasets.tasks import Task, default_tasks
from bench.records import Record, records_frame
from bench.volumes import VolumeSet, VolumeSetWriter
from metrics.segmentation import segmentation_scores
from metrics.surface import diagonal_mm

PAPER = {0: "background", 1: "liver", 2: "portal vein", 3: "hepatic vein", 4: "HCC"}
SPACINGS = ((1.0, 2.0, 3.0), (0.5, 0.5, 2.0), (1.0, 1.0, 1.0))
GRID = (8, 6, 10)


@pytest.fixture
def test_set(tmp_path: Path) -> VolumeSet:
    """Case 0 has every label, case 1 no HCC, case 2 the liver alone; all of other spacings."""
    rng = np.random.default_rng(0)
    label = np.repeat(rng.integers(0, 5, (8, 6, 5)), 2, axis=2).astype(np.uint8)
    no_hcc = np.where(label == 4, 1, label).astype(np.uint8)
    with VolumeSetWriter(tmp_path, GRID, PAPER) as writer:
        for i, (case, spacing) in enumerate(
            zip((label, no_hcc, np.minimum(label, 1)), SPACINGS, strict=True)
        ):
            writer.append(f"case-{i}", np.zeros(GRID), case, np.diag([*spacing, 1.0]))
    return VolumeSet.open(tmp_path)


def values(records: list[Record], metric: str, case: str) -> dict[str, float]:
    return {r["label"]: r["value"] for r in records if (r["metric"], r["case"]) == (metric, case)}


def predictions_of(test: VolumeSet, task: Task) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """References moved by a voxel; the hepatic vein (class 2 of multi-class) is never predicted."""
    moved = np.stack([np.roll(task.apply(test.label(i)), 1, axis=0) for i in range(len(test))])
    moved[moved == 2] = 0
    moved[1, 0, 0, 0] = 3
    return moved


def test_every_score_stands_per_class_and_in_the_mean(test_set: VolumeSet) -> None:
    task = default_tasks(PAPER)["multi-class"]
    predictions = predictions_of(test_set, task)
    records = case_records(task, test_set, predictions, 1.5)
    expected = segmentation_scores(
        predictions[0], task.apply(test_set.label(0)), (1, 2, 3), SPACINGS[0], task.class_kinds, 1.5
    )
    for metric in ("dice", "surface_dice", "hd95", "volume_error"):
        found = values(records, metric, "case-0")
        assert list(found) == ["portal vein", "hepatic vein", "HCC", ""]
        np.testing.assert_array_equal([found[name] for name in task.class_names], expected[metric])
        assert found[""] == pytest.approx(expected[metric].mean())
    assert values(records, "hd95", "case-0")["hepatic vein"] == diagonal_mm(GRID, SPACINGS[0])
    assert values(records, "hd95", "case-1")["hepatic vein"] == diagonal_mm(GRID, SPACINGS[1])
    cldice = values(records, "cldice", "case-0")
    assert list(cldice) == ["portal vein", "hepatic vein", ""]
    assert cldice[""] == pytest.approx(expected["cldice"][:2].mean())
    lesion = values(records, "lesion_f1", "case-0")
    assert lesion == {"HCC": expected["lesion_f1"][2], "": expected["lesion_f1"][2]}
    records_frame(records)


def test_absent_classes_have_a_reason_and_are_counted(test_set: VolumeSet) -> None:
    task = default_tasks(PAPER)["multi-class"]
    records = case_records(task, test_set, predictions_of(test_set, task), 1.5)
    dice = values(records, "dice", "case-1")
    assert math.isnan(dice["HCC"])
    assert dice[""] == pytest.approx((dice["portal vein"] + dice["hepatic vein"]) / 2)
    assert all(math.isnan(v) for v in values(records, "dice", "case-2").values())
    for record in records:
        assert math.isnan(record["value"]) == ("reason" in record)
    reasons = {r["metric"]: r["reason"] for r in records if r["label"] == "" and "reason" in r}
    assert reasons["cldice"] == "The reference of this case has no portal vein or hepatic vein."
    assert reasons["lesion_f1"] == "The reference of this case has no HCC."
    assert values(records, "missed", "case-0") == {"portal vein": 0, "hepatic vein": 1, "HCC": 0}
    assert values(records, "absent_but_predicted", "case-0") == {}
    assert values(records, "missed", "case-1") == {"portal vein": 0, "hepatic vein": 1}
    assert values(records, "absent_but_predicted", "case-1") == {"HCC": 1}
    assert set(values(records, "absent_but_predicted", "case-2").values()) == {0}


def test_an_organ_has_no_score_of_vessels_and_lesions(test_set: VolumeSet) -> None:
    task = default_tasks(PAPER)["liver-only"]
    predictions = np.stack([task.apply(test_set.label(i)) for i in range(len(test_set))])
    records = case_records(task, test_set, predictions, 1.5)
    metrics = {r["metric"] for r in records}
    assert metrics == {"dice", "surface_dice", "hd95", "volume_error", "missed"}

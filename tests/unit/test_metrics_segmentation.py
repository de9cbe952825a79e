"""All scores of a case: one rule for absent structures, and what each kind is scored by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from metrics.cldice import cldice
from metrics.dice import dice_per_class
from metrics.lesions import lesion_scores
from metrics.segmentation import COUNTS, KINDS, METRICS, Kind, segmentation_scores
from metrics.surface import diagonal_mm, surface_scores
from metrics.volume import volume_error

LABELS = (1, 2, 3)
SPACING = (1.5, 0.8, 3.0)
Labels = NDArray[np.uint8]

label_maps = arrays(np.uint8, (3, 4, 3), elements=st.sampled_from([0, 0, 1, 2, 3]))


def case(seed: int) -> tuple[Labels, Labels]:
    rng = np.random.default_rng(seed)
    reference = np.repeat(rng.integers(0, 4, (4, 5, 6)), 2, axis=2).astype(np.uint8)
    wrong = rng.random(reference.shape) < 0.2
    prediction = np.where(wrong, rng.integers(0, 4, reference.shape), reference)
    return prediction.astype(np.uint8), reference


def test_each_score_is_that_of_its_metric() -> None:
    prediction, reference = case(0)
    scores = segmentation_scores(prediction, reference, LABELS, SPACING, KINDS, 1.0)
    assert set(scores) == {*METRICS, *COUNTS}
    np.testing.assert_array_equal(scores["dice"], dice_per_class(prediction, reference, LABELS))
    for i, label in enumerate(LABELS):
        p, r = prediction == label, reference == label
        surface = scores["surface_dice"][i], scores["hd95"][i]
        assert surface == surface_scores(p, r, SPACING, 1.0)
        assert scores["volume_error"][i] == volume_error(p, r)
    np.testing.assert_array_equal(
        scores["cldice"], [math.nan, cldice(prediction == 2, reference == 2), math.nan]
    )
    lesion = lesion_scores(prediction == 3, reference == 3)
    for name, value in lesion._asdict().items():
        np.testing.assert_array_equal(scores[f"lesion_{name}"], [math.nan, math.nan, value])
    np.testing.assert_array_equal(scores["missed"], [0, 0, 0])
    assert np.isnan(scores["absent_but_predicted"]).all()


@settings(max_examples=60, deadline=None)
@given(label_maps, label_maps, st.permutations(KINDS))
def test_the_rule_for_absent_structures(
    prediction: Labels, reference: Labels, kinds: list[Kind]
) -> None:
    scores = segmentation_scores(prediction, reference, LABELS, SPACING, kinds, 1.0)
    for i, (label, kind) in enumerate(zip(LABELS, kinds, strict=True)):
        predicted, true = (prediction == label).any(), (reference == label).any()
        for name, metric in METRICS.items():
            value = scores[name][i]
            worst = diagonal_mm(reference.shape, SPACING) if name == "hd95" else metric.missed
            assert math.isnan(value) == (not true or metric.kind not in (None, kind))
            if not math.isnan(value) and not predicted:
                assert value == worst
            if name == "hd95" and true and predicted:
                assert value < worst
        counts = [scores[name][i] for name in COUNTS]
        np.testing.assert_array_equal(
            counts, [math.nan, not predicted] if true else [predicted, math.nan]
        )
    perfect = segmentation_scores(reference, reference, LABELS, SPACING, kinds, 0.0)
    for name, metric in METRICS.items():
        scored = perfect[name][~np.isnan(perfect[name])]
        np.testing.assert_array_equal(scored, metric.best)


def test_a_case_without_any_structure_has_no_score() -> None:
    empty = np.zeros((3, 3, 3), dtype=np.uint8)
    scores = segmentation_scores(empty, empty, LABELS, SPACING, KINDS, 1.0)
    assert all(np.isnan(scores[name]).all() for name in (*METRICS, "missed"))
    np.testing.assert_array_equal(scores["absent_but_predicted"], [0, 0, 0])


def test_volume_error_is_signed() -> None:
    reference = np.arange(12) < 4
    assert volume_error(np.arange(12) < 6, reference) == 0.5 == 6 / 4 - 1
    assert volume_error(np.arange(12) < 1, reference) == -0.75
    assert volume_error(np.arange(12) >= 8, reference) == 0.0
    assert volume_error(np.zeros(12, dtype=bool), reference) == -1.0
    assert math.isnan(volume_error(reference, np.zeros(12, dtype=bool)))
    with pytest.raises(ValueError, match="reference has dtype int64"):
        volume_error(reference, reference.astype(np.int64))


def test_scores_follow_the_spacing() -> None:
    prediction, reference = case(1)
    one = segmentation_scores(prediction, reference, LABELS, SPACING, KINDS, 1.0)
    two = segmentation_scores(prediction, reference, LABELS, [2 * mm for mm in SPACING], KINDS, 2.0)
    np.testing.assert_allclose(two["hd95"], 2 * one["hd95"], rtol=1e-6)
    for name in set(METRICS) - {"hd95"}:
        np.testing.assert_array_equal(two[name], one[name])


def test_refuses() -> None:
    label = np.ones((2, 2, 2), dtype=np.uint8)

    def scores(**changed: object) -> None:
        given = {
            "prediction": label,
            "reference": label,
            "labels": (1, 2),
            "spacing": (1.0, 1.0, 1.0),
            "kinds": ("organ", "vessel"),
            "tolerance_mm": 1.0,
        }
        segmentation_scores(**(given | changed))  # type: ignore[arg-type]

    scores()
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) and the reference \(2, 2, 2\)"):
        scores(prediction=label[:1])
    with pytest.raises(ValueError, match="at least one voxel"):
        scores(prediction=label[:0], reference=label[:0])
    with pytest.raises(ValueError, match="prediction has dtype float64"):
        scores(prediction=label.astype(float))
    with pytest.raises(ValueError, match=r"prediction holds the labels \[3\].* classes \[1, 2\]"):
        scores(prediction=3 * label)
    with pytest.raises(ValueError, match=r"reference holds the labels \[-1\]"):
        scores(reference=-label.astype(np.int16))
    with pytest.raises(ValueError, match="no labels"):
        scores(labels=(), kinds=())
    with pytest.raises(ValueError, match=r"\[1, 1\] repeat"):
        scores(labels=(1, 1))
    with pytest.raises(ValueError, match="1 kinds for 2 labels"):
        scores(kinds=("organ",))
    with pytest.raises(ValueError, match=r"kinds \['bone'\] are unknown"):
        scores(kinds=("organ", "bone"))
    with pytest.raises(ValueError, match="does not fit a volume of 3 axes"):
        scores(spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match="above 0 mm"):
        scores(spacing=(1.0, 1.0, 0.0), reference=0 * label)
    with pytest.raises(ValueError, match="tolerance is -1"):
        scores(tolerance_mm=-1.0)
    with pytest.raises(ValueError, match="tolerance is nan"):
        scores(tolerance_mm=math.nan, reference=0 * label)

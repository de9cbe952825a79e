"""Dice against MONAI and scikit-learn, and by its properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import DiceMetric, compute_dice
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from metrics.dice import case_dice, dice_per_class

LABELS = (1, 2, 3)
Labels = NDArray[np.uint8]

label_volumes = arrays(np.uint8, (3, 3, 2), elements=st.integers(0, 3))


def cases(seed: int, n: int) -> tuple[Labels, Labels]:
    """Label volumes of which some lack some classes, and predictions with some errors."""
    rng = np.random.default_rng(seed)
    references = rng.integers(0, rng.integers(1, 5, size=(n, 1, 1, 1)), size=(n, 6, 5, 4))
    wrong = rng.random(references.shape) < 0.3
    predictions = np.where(wrong, rng.integers(0, 4, size=references.shape), references)
    return predictions.astype(np.uint8), references.astype(np.uint8)


def one_hot(volumes: Labels) -> torch.Tensor:
    return torch.from_numpy((volumes[:, None] == np.arange(4)[:, None, None, None]).astype("f4"))


def test_equals_monai_case_by_case_and_in_the_mean() -> None:
    predictions, references = cases(0, 20)
    ours = np.stack(
        [dice_per_class(p, r, LABELS) for p, r in zip(predictions, references, strict=True)]
    )
    assert np.isnan(ours).any()
    assert np.isfinite(ours).any()
    pair = one_hot(predictions), one_hot(references)
    theirs = compute_dice(*pair, include_background=False, ignore_empty=True).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    metric = DiceMetric(include_background=False, reduction="mean_batch", ignore_empty=True)
    metric(*pair)
    np.testing.assert_allclose(np.nanmean(ours, axis=0), metric.aggregate().numpy(), rtol=1e-6)


def test_equals_the_f1_score() -> None:
    predictions, references = cases(1, 8)
    for prediction, reference in zip(predictions, references, strict=True):
        scores = dice_per_class(prediction, reference, LABELS)
        expected = f1_score(
            reference.ravel(), prediction.ravel(), labels=LABELS, average=None, zero_division=0
        )
        present = ~np.isnan(scores)
        np.testing.assert_allclose(scores[present], expected[present])


@settings(max_examples=100, deadline=None)
@given(label_volumes, label_volumes)
def test_properties(prediction: Labels, reference: Labels) -> None:
    scores = dice_per_class(prediction, reference, LABELS)
    swapped = dice_per_class(reference, prediction, LABELS)
    for label, score, other in zip(LABELS, scores, swapped, strict=True):
        inside, truth = prediction == label, reference == label
        assert np.isnan(score) == (not truth.any())
        if truth.any():
            assert 0 <= score <= 1
            assert (score == 1) == np.array_equal(inside, truth)
            assert (score == 0) == (not (inside & truth).any())
        if truth.any() and inside.any():
            assert score == other


def test_an_absent_class_is_left_out_whatever_the_prediction() -> None:
    reference = np.array([1, 1, 0, 0])
    silent, false_positive = np.array([1, 1, 0, 0]), np.array([1, 1, 2, 2])
    for prediction in (silent, false_positive):
        scores = dice_per_class(prediction, reference, (1, 2))
        np.testing.assert_array_equal(scores, [1.0, np.nan])
        assert case_dice(scores) == 1.0
    missed = dice_per_class(np.zeros(4, dtype=int), reference, (1, 2))
    np.testing.assert_array_equal(missed, [0.0, np.nan])


def test_case_dice_of_no_class_is_nan_without_a_warning() -> None:
    assert np.isnan(case_dice(np.array([np.nan, np.nan])))
    assert case_dice(np.array([0.5, np.nan, 1.0])) == 0.75


def test_refuses() -> None:
    labels = np.zeros((2, 2), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 2\) and the reference \(4,\)"):
        dice_per_class(labels, labels.ravel(), LABELS)
    with pytest.raises(ValueError, match="prediction has dtype float64"):
        dice_per_class(labels.astype(float), labels, LABELS)
    with pytest.raises(ValueError, match="reference has dtype float32"):
        dice_per_class(labels, labels.astype(np.float32), LABELS)
    with pytest.raises(ValueError, match=r"prediction holds the labels \[4, 9\].*\[1, 2, 3\]"):
        dice_per_class(np.array([0, 4, 9]), np.array([0, 1, 2]), LABELS)
    with pytest.raises(ValueError, match=r"reference holds the labels \[3\]"):
        dice_per_class(np.array([0, 1]), np.array([0, 3]), (1, 2))
    with pytest.raises(ValueError, match="at least one voxel"):
        dice_per_class(labels[:0], labels[:0], LABELS)
    with pytest.raises(ValueError, match="no labels to score"):
        dice_per_class(labels, labels, ())
    with pytest.raises(ValueError, match=r"\[1, 2, 1\] repeat"):
        dice_per_class(labels, labels, (1, 2, 1))


def test_the_background_may_be_a_class() -> None:
    np.testing.assert_allclose(
        dice_per_class(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), (0, 1)), [2 / 3, 4 / 5]
    )

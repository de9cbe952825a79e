"""Lesion-wise scores against all possible matchings, and in cases that can be counted by hand."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from skimage.measure import label

from metrics.lesions import lesion_scores

Mask = NDArray[np.bool_]

masks = arrays(np.bool_, (3, 3, 6), elements=st.sampled_from([True, False, False, False]))


def by_all_matchings(prediction: Mask, reference: Mask, min_iou: float) -> tuple[float, ...]:
    """The scores of the best of all one-to-one matchings of scikit-image's components."""
    found, true = label(prediction, connectivity=3), label(reference, connectivity=3)
    short, long = sorted(([m == i for i in range(1, m.max() + 1)] for m in (found, true)), key=len)
    best = (-1.0, 0)
    for partners in permutations(range(len(long)), len(short)):
        ious = [
            (a & long[j]).sum() / (a | long[j]).sum() for a, j in zip(short, partners, strict=True)
        ]
        kept = [iou for iou in ious if iou >= min_iou]
        best = max(best, (sum(kept), len(kept)))
    pairs, n_true, n_found = best[1], true.max(), found.max()
    sensitivity, precision = pairs / n_true, pairs / n_found
    total = sensitivity + precision
    return sensitivity, precision, 2 * sensitivity * precision / total if total else 0.0


@settings(max_examples=150, deadline=None)
@given(masks, masks, st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_equals_the_best_of_all_matchings(
    prediction: Mask, reference: Mask, min_iou: float
) -> None:
    assume(prediction.any() and reference.any())
    assume(max(label(m, connectivity=3).max() for m in (prediction, reference)) <= 6)
    ours = lesion_scores(prediction, reference, min_iou)
    np.testing.assert_allclose(ours, by_all_matchings(prediction, reference, min_iou))
    swapped = lesion_scores(reference, prediction, min_iou)
    assert (swapped.precision, swapped.sensitivity) == (ours.sensitivity, ours.precision)
    assert lesion_scores(reference, reference, min_iou) == (1.0, 1.0, 1.0)


def row(*runs: tuple[int, int]) -> Mask:
    """A row of 60 voxels; each run (start, length) is one lesion."""
    mask = np.zeros((1, 1, 60), dtype=bool)
    for start, length in runs:
        mask[..., start : start + length] = True
    return mask


def test_one_of_three_found_and_one_false() -> None:
    scores = lesion_scores(row((0, 4), (50, 3)), row((0, 5), (10, 5), (20, 5)))
    assert scores == (pytest.approx(1 / 3), 0.5, pytest.approx(0.4))


def test_a_pair_at_the_threshold_counts() -> None:
    assert lesion_scores(row((0, 2)), row((0, 20))).f1 == 1.0  # IoU 2/20
    assert lesion_scores(row((0, 2)), row((0, 21))).f1 == 0.0
    assert lesion_scores(row((0, 3)), row((0, 30))).f1 == 1.0


def test_one_prediction_over_two_lesions_finds_one() -> None:
    scores = lesion_scores(row((0, 21)), row((0, 10), (11, 10)))
    assert scores == (0.5, 1.0, pytest.approx(2 / 3))


def test_a_lesion_in_two_pieces_has_one_right_piece() -> None:
    scores = lesion_scores(row((0, 10), (11, 10)), row((0, 21)))
    assert scores == (1.0, 0.5, pytest.approx(2 / 3))


def test_the_closest_pair_is_given_up_where_two_pairs_are_closer_together() -> None:
    """The long prediction fits the first lesion best, but only it can have the second one."""
    prediction, reference = row((0, 4), (5, 12)), row((0, 12), (13, 4))
    short_first, long_first, long_second = 4 / 12, 7 / 17, 4 / 12
    assert max(short_first, long_second) < long_first < short_first + long_second
    assert lesion_scores(prediction, reference) == (1.0, 1.0, 1.0)


def test_a_close_pair_is_kept_where_two_pairs_are_far_off() -> None:
    prediction, reference = row((0, 3), (4, 20)), row((0, 20), (21, 3))
    short_first, long_first, long_second = 3 / 20, 16 / 24, 3 / 20
    assert long_first > short_first + long_second
    assert lesion_scores(prediction, reference) == (0.5, 0.5, 0.5)


def test_voxels_that_share_a_corner_are_one_lesion() -> None:
    reference = np.zeros((4, 4, 4), dtype=bool)
    reference[1, 1, 1] = reference[2, 2, 2] = True
    prediction = reference.copy()
    prediction[2, 2, 2] = False
    assert lesion_scores(prediction, reference) == (1.0, 1.0, 1.0)
    far = reference.copy()
    far[2, 2, 2], far[3, 3, 3] = False, True
    assert lesion_scores(prediction, far).sensitivity == 0.5


def test_noise_is_scored_without_a_table_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    noise, other = rng.random((2, 48, 48, 48)) < 0.03
    scores = lesion_scores(noise, other)
    assert label(noise, connectivity=3).max() > 1000
    assert 0 < scores.f1 < 0.2


def test_absent_structures() -> None:
    empty, some = row(), row((0, 3))
    for prediction in (empty, some):
        assert all(math.isnan(v) for v in lesion_scores(prediction, empty))
    assert lesion_scores(empty, some) == (0.0, 0.0, 0.0)


def test_refuses() -> None:
    mask = row((0, 3))
    with pytest.raises(ValueError, match="expected a boolean mask"):
        lesion_scores(mask.astype(int), mask)
    with pytest.raises(ValueError, match=r"and the reference \(1, 60\)"):
        lesion_scores(mask, mask[0])
    for wrong in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"match is {wrong}; expected a number in"):
            lesion_scores(mask, mask, wrong)

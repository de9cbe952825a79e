"""Surface Dice and HD95 against MONAI, against distance transforms, and by their properties."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from metrics.surface import diagonal_mm, surface_scores

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

masks = arrays(np.bool_, (4, 3, 5))
lengths = st.floats(0.2, 5.0)
spacings = st.tuples(lengths, lengths, lengths)


def blobs(seed: int, shape: tuple[int, int, int], where: str) -> tuple[Mask, Mask]:
    """Two smooth masks that overlap, in the middle of a grid or cut off by its border."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 2, 2, 2))
    prediction, reference = fields[0] + 2 * fields[1] > 0.05, fields[1] > 0.02
    if where == "middle":
        inner = np.zeros(shape, dtype=bool)
        inner[5:-5, 6:-4, 5:-6] = True
        return prediction & inner, reference & inner
    assert reference[0].any()
    assert prediction[:, :, -1].any()
    return prediction, reference


def of_monai(
    prediction: Mask, reference: Mask, spacing: Spacing, tolerance: float
) -> tuple[float, float]:
    pair = torch.from_numpy(prediction)[None, None], torch.from_numpy(reference)[None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dice = compute_surface_dice(*pair, [tolerance], include_background=True, spacing=spacing)
        hd95 = compute_hausdorff_distance(
            *pair, include_background=True, percentile=95, spacing=spacing
        )
    return dice.item(), hd95.item()


def of_transforms(
    prediction: Mask, reference: Mask, spacing: Spacing, tolerance: float
) -> tuple[float, float]:
    """From distance transforms of the whole, padded grid; a surface voxel has a face outside."""
    surfaces = []
    for mask in (np.pad(prediction, 1), np.pad(reference, 1)):
        inner = mask.copy()
        for axis in range(3):
            for shift in (-1, 1):
                inner &= np.roll(mask, shift, axis)
        surfaces.append(mask & ~inner)
    there = ndimage.distance_transform_edt(~surfaces[1], sampling=spacing)[surfaces[0]]
    back = ndimage.distance_transform_edt(~surfaces[0], sampling=spacing)[surfaces[1]]
    both = np.concatenate([there, back])
    return float((both <= tolerance).mean()), float(
        max(np.quantile(there, 0.95), np.quantile(back, 0.95))
    )


@pytest.mark.parametrize("where", ["middle", "border"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 4.0)])
def test_equals_monai_and_distance_transforms(where: str, spacing: Spacing) -> None:
    for seed in range(3):
        pair = blobs(seed, (22, 20, 24), where)
        ours = surface_scores(*pair, spacing, 2.05)
        assert 0.1 < ours.surface_dice < 1
        # MONAI's quantile finds its rank among some 1000 distances in single precision.
        np.testing.assert_allclose(ours, of_monai(*pair, spacing, 2.05), rtol=1e-5)
        np.testing.assert_allclose(ours, of_transforms(*pair, spacing, 2.05), rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(masks, masks, spacings, st.floats(0.0, 8.0))
def test_equals_distance_transforms_on_any_masks(
    prediction: Mask, reference: Mask, spacing: Spacing, tolerance: float
) -> None:
    assume(prediction.any() and reference.any())
    dice, hd95 = of_transforms(prediction, reference, spacing, tolerance)
    ours = surface_scores(prediction, reference, spacing, tolerance)
    assert ours.hd95 == pytest.approx(hd95, rel=1e-6)
    # float32 distances may fall to the other side of a tolerance that they all but equal.
    near = [
        of_transforms(prediction, reference, spacing, tolerance * (1 + e))[0] for e in (-1e-6, 1e-6)
    ]
    assert near[0] <= ours.surface_dice <= near[1]
    assert near[0] <= dice <= near[1]


@settings(max_examples=60, deadline=None)
@given(masks, masks, spacings)
def test_properties(prediction: Mask, reference: Mask, spacing: Spacing) -> None:
    assume(prediction.any() and reference.any())
    scores = surface_scores(prediction, reference, spacing, 1.0)
    assert scores == surface_scores(reference, prediction, spacing, 1.0)
    assert 0 <= scores.surface_dice <= 1
    assert 0 <= scores.hd95 < diagonal_mm(prediction.shape, spacing)
    assert surface_scores(reference, reference, spacing, 0.0) == (1.0, 0.0)
    assert surface_scores(prediction, reference, spacing, 2.0).surface_dice >= scores.surface_dice
    assert surface_scores(prediction, reference, spacing, 1e3).surface_dice == 1.0
    turned = surface_scores(prediction.T, reference.T, spacing[::-1], 1.0)
    np.testing.assert_allclose(turned, scores, rtol=1e-6)
    wider = surface_scores(np.pad(prediction, 2), np.pad(reference, 2), spacing, 1.0)
    assert wider == scores  # more background around changes nothing


@pytest.mark.parametrize(("axis", "mm"), [(0, 1.1), (1, 0.3), (2, 2.5)])
def test_two_voxels_lie_their_distance_apart(axis: int, mm: float) -> None:
    spacing = np.array([1.1, 0.3, 2.5])
    one, other = np.zeros((2, 8, 8, 8), dtype=bool)
    one[2, 2, 2] = True
    other[tuple(np.array([2, 2, 2]) + 3 * np.eye(3, dtype=int)[axis])] = True
    assert surface_scores(one, other, spacing, 3 * mm) == (1.0, pytest.approx(3 * mm))
    assert surface_scores(one, other, spacing, 2.99 * mm).surface_dice == 0.0


@pytest.mark.parametrize(("voxels", "tolerance"), [(2, 2.2), (3, 3.3)])
def test_a_tolerance_that_a_decimal_distance_equals_is_kept(voxels: int, tolerance: float) -> None:
    """In double precision 3 x 1.1 exceeds 3.3, and single-precision 2.2 exceeds 2.2."""
    one, other = np.zeros((2, 5, 1, 1), dtype=bool)
    one[0], other[voxels] = True, True
    assert 3 * 1.1 > 3.3
    assert float(np.float32(2.2)) > 2.2
    for stated in (tolerance, np.float64(tolerance)):
        assert surface_scores(one, other, (1.1, 1.0, 1.0), stated).surface_dice == 1.0


def test_the_95th_percentile_is_of_each_direction() -> None:
    """One of 20 far voxels in one direction; the other direction has none: max, not pooled."""
    reference = np.zeros((1, 1, 60), dtype=bool)
    reference[..., :10] = True
    prediction = reference.copy()
    prediction[..., 59] = True
    distances = [0.0] * 10 + [50 * 2.0]
    scores = surface_scores(prediction, reference, (1.0, 1.0, 2.0), 1.0)
    assert scores.hd95 == pytest.approx(np.percentile(distances, 95))
    assert scores.surface_dice == pytest.approx(20 / 21)


def test_absent_structures() -> None:
    empty, some = np.zeros((3, 4, 5), dtype=bool), np.zeros((3, 4, 5), dtype=bool)
    some[1, 1, 1] = True
    spacing = (1.0, 2.0, 0.5)
    for prediction in (empty, some):
        assert all(math.isnan(v) for v in surface_scores(prediction, empty, spacing, 1.0))
    missed = surface_scores(empty, some, spacing, 1.0)
    assert missed == (0.0, pytest.approx(math.sqrt(3**2 + 8**2 + 2.5**2)))


def test_refuses() -> None:
    mask = np.ones((2, 2, 2), dtype=bool)
    with pytest.raises(ValueError, match=r"\(2, 2, 2\) and the reference \(2, 2\)"):
        surface_scores(mask, mask[0], (1.0, 1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="reference has dtype float64"):
        surface_scores(mask, mask.astype(float), (1.0, 1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="prediction has dtype uint8"):
        surface_scores(mask.astype(np.uint8), mask, (1.0, 1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="at least one voxel"):
        surface_scores(mask[:0], mask[:0], (1.0, 1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match=r"\[1.0, 1.0\] does not fit a volume of 3 axes"):
        surface_scores(mask, mask, (1.0, 1.0), 1.0)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="must be finite and above 0 mm"):
            surface_scores(mask, mask, (1.0, wrong, 1.0), 1.0)
    for tolerance in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"The tolerance is {tolerance} mm"):
            surface_scores(mask, mask, (1.0, 1.0, 1.0), tolerance)

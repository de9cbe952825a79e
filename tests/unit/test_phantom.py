from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from bench.datasets import phantom_shapes as shapes
from bench.datasets.phantom import LABEL_NAMES, PhantomCase, phantom_case
from bench.datasets.phantom_image import Canvas
from bench.datasets.phantom_vessels import Balls
from bench.errors import InputError

BACKGROUND, LIVER, PORTAL, HEPATIC, HCC = range(5)
COARSE, FINE = (32, 32, 32), (64, 64, 64)
CORNERS = np.ones((3, 3, 3), dtype=bool)


@cache
def case(index: int, grid: tuple[int, int, int] = COARSE, seed: int = 5) -> PhantomCase:
    return phantom_case(index, seed, grid)


def parts(mask: NDArray[Any]) -> NDArray[Any]:
    """Sizes of the face-connected components of a mask."""
    return np.bincount(ndimage.label(mask)[0].ravel())[1:]


def centre(mask: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.argwhere(mask).mean(axis=0))


def test_a_case_is_the_same_whatever_was_drawn_before_it() -> None:
    fresh = phantom_case(3, 5, COARSE)
    phantom_case(2, 5, COARSE)
    again = phantom_case(3, 5, COARSE)
    assert np.array_equal(fresh.image, again.image)
    assert np.array_equal(fresh.label, again.label)


def test_index_and_seed_each_change_anatomy_and_image() -> None:
    base, other_index, other_seed = case(0), case(1), case(0, COARSE, 6)
    for other in (other_index, other_seed):
        assert (base.label != other.label).mean() > 0.005
        assert not np.array_equal(base.image, other.image)
    # (seed, index) = (0, 1) and (1, 0) are different patients.
    assert not np.array_equal(phantom_case(1, 0, COARSE).label, phantom_case(0, 1, COARSE).label)


@pytest.mark.parametrize("grid", [COARSE, (32, 48, 32), (64, 32, 48)])
def test_types_ranges_and_field_of_view(grid: tuple[int, int, int]) -> None:
    image, label, spacing = case(1, grid)
    assert image.shape == label.shape == grid
    assert image.dtype == np.float32
    assert label.dtype == np.uint8
    assert np.isfinite(image).all()
    assert image.min() >= 0.0
    assert image.max() <= 1.0
    assert np.isin(label, list(LABEL_NAMES)).all()
    np.testing.assert_allclose(np.multiply(spacing, grid), (256.0, 224.0, 192.0))


def test_the_same_patient_on_every_grid() -> None:
    for index in range(4):
        coarse, fine = case(index), case(index, FINE)
        # A coarse voxel covers 2 x 2 x 2 fine ones.
        cover = (fine.label > 0).reshape(32, 2, 32, 2, 32, 2).mean(axis=(1, 3, 5)) > 0.5
        whole = coarse.label > 0
        dice = 2.0 * (cover & whole).sum() / (cover.sum() + whole.sum())
        assert dice > 0.93
        assert len(parts(coarse.label == HCC)) == len(parts(fine.label == HCC))


def test_patient_lies_as_the_axes_say() -> None:
    for index in range(10):
        image, label, _ = case(index)
        # Liver right of the image's middle; vertebrae and canal behind it; lungs on top.
        assert centre(label > 0)[0] > 16.0
        air_above, abdomen = image[20:26, 10:22, 30:].mean(), image[20:26, 10:22, 10:20].mean()
        assert air_above < 0.5 * abdomen
        # The hepatic veins converge above and behind, the portal vein enters from below.
        voxels = np.argwhere(label == HEPATIC)
        confluence = voxels[np.argsort(voxels[:, 2])[-6:]].mean(axis=0)
        assert confluence[2] > centre(label == PORTAL)[2] + 1.0
        assert confluence[1] < centre(label == LIVER)[1]


def test_kidneys_are_bright_on_both_sides_of_the_spine() -> None:
    for index in range(4):
        image, label, _ = case(index, FINE)
        back = np.where(label == 0, image, 0.0)[:, 8:30, 8:30]
        for side in (back[:28], back[28:]):
            assert (side > 0.5).sum() > 100


def test_veins_lie_in_the_liver_and_keep_apart() -> None:
    for index in range(12):
        label = case(index).label
        portal, hepatic = label == PORTAL, label == HEPATIC
        assert portal.sum() >= 30
        assert hepatic.sum() >= 15
        # Never face-adjacent, each one tree (26-connected).
        assert not (ndimage.binary_dilation(portal) & hepatic).any()
        assert ndimage.label(portal, CORNERS)[1] == 1
        assert ndimage.label(hepatic, CORNERS)[1] == 1
        near_liver = ndimage.binary_dilation(label == LIVER, CORNERS, iterations=2)
        assert near_liver[portal | hepatic].all()
        lesions, count = ndimage.label(label == HCC)
        for lesion in range(1, count + 1):
            mask = lesions == lesion
            shell = ndimage.binary_dilation(mask, CORNERS) & ~mask
            assert (label[shell] > 0).mean() > 0.5


@pytest.mark.parametrize(("grid", "width"), [(COARSE, 2), (FINE, 3)])
def test_trunks_are_at_least_two_voxels_wide(grid: tuple[int, int, int], width: int) -> None:
    for index in range(6):
        label = case(index, grid).label
        for vein in (PORTAL, HEPATIC):
            # A trunk holds a square across its course, whichever axis it runs along.
            held = 0
            for axis in range(3):
                square = np.ones([1 if k == axis else width for k in range(3)])
                held += int(ndimage.binary_opening(label == vein, square).sum())
            assert held >= 3 * width**2


def test_veins_branch_and_taper() -> None:
    for index in range(6):
        label = case(index, FINE).label
        for vein in (PORTAL, HEPATIC):
            mask = label == vein
            radius = ndimage.distance_transform_edt(mask)
            wide = ndimage.binary_dilation(radius >= 1.7, CORNERS)
            # Cutting the wide trunk out leaves several separate twigs, most of them thin.
            twigs = [size for size in parts(mask & ~wide) if size >= 5]
            assert len(twigs) >= 4
            assert (radius[mask] <= 1.0).mean() > 0.5


def test_signal_is_that_of_the_hepatobiliary_phase() -> None:
    for index in range(6):
        image, label, _ = case(index, FINE)
        liver = image[label == LIVER].mean()
        for dark in (PORTAL, HEPATIC, HCC):
            if (label == dark).any():
                assert image[label == dark].mean() < 0.75 * liver


def test_spleen_is_darker_than_liver_and_brighter_than_muscle() -> None:
    for index in range(6):
        patient = shapes.draw_patient(np.random.default_rng([5, index]))
        canvas = Canvas(patient, FINE)
        x, y, z = canvas.coordinates
        spleen = shapes.spleen(patient, x, y, z) < -4.0
        image, label, _ = case(index, FINE)
        assert spleen.sum() > 150
        assert (label[spleen] == BACKGROUND).all()
        assert 0.3 < image[spleen].mean() < 0.95 * image[label == LIVER].mean()


def test_lesions_number_zero_to_three_in_three_quarters_of_cases() -> None:
    counts = np.array([len(parts(case(index).label == HCC)) for index in range(40)])
    assert counts.max() <= 3
    assert set(counts) == {0, 1, 2, 3}
    # 75 % of 40, within three binomial standard deviations.
    assert 22 <= (counts > 0).sum() <= 38
    sizes = np.concatenate([parts(case(index).label == HCC) for index in range(40)])
    assert sizes.max() > 5 * sizes.min()


def test_noise_in_air_is_rayleigh() -> None:
    image = case(2, FINE).image
    # The right anterior and posterior edges of the field of view lie outside every body.
    air = np.concatenate([image[-5:, :5].ravel(), image[-5:, -5:].ravel()])
    assert air.min() >= 0.0
    # Mean over standard deviation of a Rayleigh variable: sqrt(pi / (4 - pi)) = 1.913.
    assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4.0 - np.pi)), rel=0.05)
    assert 0.01 < air.mean() < 0.04


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), index=st.integers(0, 10**6))
def test_volume_fractions_are_those_of_an_abdomen(seed: int, index: int) -> None:
    label = phantom_case(index, seed, COARSE).label
    fraction = np.bincount(label.ravel(), minlength=5) / label.size
    assert 0.04 < fraction[1:].sum() < 0.18
    assert 0.0008 < fraction[PORTAL] < 0.01
    assert 0.0003 < fraction[HEPATIC] < 0.01
    assert fraction[HCC] < 0.25 * fraction[1:].sum()
    assert parts(label > 0).max() > 0.97 * (label > 0).sum()


def test_power_distance_has_the_sign_of_the_union_of_balls() -> None:
    rng = np.random.default_rng(0)
    centres, radii = rng.uniform(0.0, 30.0, (40, 3)), rng.uniform(1.0, 5.0, 40)
    points = rng.uniform(-5.0, 35.0, (3000, 3))
    exact = (np.linalg.norm(points[:, None] - centres, axis=2) - radii).min(axis=1)
    found = Balls(centres, radii).distance(points, 3.0)
    assert np.array_equal(found < 0.0, exact < 0.0)
    assert (found <= 3.0).all()


def test_capsule_and_ellipsoid_agree_with_the_sphere() -> None:
    rng = np.random.default_rng(1)
    x, y, z = rng.uniform(-9.0, 9.0, (3, 500))
    sphere = np.sqrt(x**2 + y**2 + z**2) - 4.0
    origin = np.zeros(3)
    point = shapes.capsule(x, y, z, origin, origin, np.array([4.0, 4.0]))
    np.testing.assert_allclose(point, sphere, atol=1e-9)
    ball = shapes.ellipsoid(x, y, z, (0.0, 0.0, 0.0), (4.0, 4.0, 4.0))
    np.testing.assert_allclose(ball, sphere, atol=1e-9)


@pytest.mark.parametrize(
    "grid",
    [(16, 32, 32), (32, 32, 0), (32, 40, 32), (32, 32), (float("nan"), 32, 32), (32.0, 32, 32)],
)
def test_unusable_grid_is_refused(grid: Any) -> None:
    with pytest.raises(InputError, match=r"grid is .*multiple of 16 and at least 32"):
        phantom_case(0, 0, grid)


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1), (0.5, 0), (0, float("inf"))])
def test_unusable_index_or_seed_is_refused(index: Any, seed: Any) -> None:
    with pytest.raises(InputError, match="give an integer of at least 0"):
        phantom_case(index, seed, COARSE)

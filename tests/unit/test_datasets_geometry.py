"""Windows and resampling: nothing leaves the image, nothing aliases, thin structures stay."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti_folders import ellipsoids

from bench.datasets.geometry import (
    Window,
    filling_window,
    fixed_window,
    foreground_box,
    resample_image,
    resample_label,
)

GRID = (32, 48, 32)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(5, 60)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3).map(np.array),
    grid=st.tuples(*[st.sampled_from([32, 48, 64])] * 3),
    corners=st.tuples(*[st.tuples(st.floats(0, 1), st.floats(0, 1))] * 3),
    margin=st.floats(0, 1),
)
def test_a_filling_window_holds_the_box_and_never_leaves_the_image(
    shape, spacing, grid, corners, margin
) -> None:
    label = np.zeros(shape, np.uint8)
    label[
        tuple(
            slice(int(min(c) * (n - 1)), int(max(c) * (n - 1)) + 1)
            for c, n in zip(corners, shape, strict=True)
        )
    ] = 1
    box = foreground_box(label, margin)
    window = filling_window(box, shape, spacing, grid)
    end = window.start + window.step * np.array(grid)
    assert (window.start >= -1e-9).all()
    assert (end <= np.array(shape) + 1e-9).all()
    assert (window.start <= np.clip(box[0], 0, shape) + 1e-9).all()
    assert (end >= np.clip(box[1], 0, shape) - 1e-9).all()
    assert window.share_inside(label > 0) == 1
    # Voxels are isotropic, except along axes that use the whole image.
    voxel = window.step * spacing
    whole = np.isclose(end - window.start, shape)
    assert np.isclose(voxel[~whole], voxel.max()).all()
    # Nothing is padded: no plane of the grid is marked as outside.
    assert np.isfinite(resample_image(np.ones(shape, np.float32), window)).all()


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(*[st.integers(10, 60)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 4)] * 3).map(np.array),
    voxel=st.floats(0.5, 4),
    at=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_a_fixed_window_pads_only_where_the_image_is_smaller(shape, spacing, voxel, at) -> None:
    centre = np.array([int(a * (n - 1)) for a, n in zip(at, shape, strict=True)])
    window = fixed_window((centre, centre + 1), shape, spacing, GRID, (voxel,) * 3)
    np.testing.assert_allclose(window.step * spacing, voxel)
    end = window.start + window.step * np.array(GRID)
    room = np.array(shape) - window.step * np.array(GRID)
    fits = room >= 0
    assert (window.start[fits] >= -1e-9).all()
    assert (end[fits] <= np.array(shape)[fits] + 1e-9).all()
    # Where it does not fit, the image lies inside the window, in its middle.
    np.testing.assert_allclose((window.start + end)[~fits], np.array(shape)[~fits])


def test_the_share_inside_a_window_is_counted() -> None:
    mask = np.zeros((10, 10, 10), bool)
    mask[2:8, 5, 5] = True
    window = Window(np.array([4.0, 0, 0]), np.array([0.1, 1, 1]), (30, 10, 10))
    assert window.share_inside(mask) == 0.5


def test_coarse_sampling_does_not_alias() -> None:
    stripes = (np.indices((64, 64, 64)).sum(axis=0) % 2).astype(np.float32)
    window = Window(np.zeros(3), np.full(3, 64 / 17), (17, 17, 17))
    plain = stripes[::4, ::4, ::4]
    assert plain.std() == 0  # what sampling alone would make of it
    smooth = resample_image(stripes, window)
    assert abs(smooth.mean() - 0.5) < 0.01
    assert smooth.std() < 0.02


@given(slope=st.tuples(*[st.floats(-2, 2)] * 3))
def test_a_linear_ramp_stays_the_ramp(slope: tuple[float, float, float]) -> None:
    ramp = np.tensordot(slope, np.indices((40, 40, 40)), 1).astype(np.float32)
    window = Window(np.array([10.0, 11.3, 9.7]), np.array([0.5, 0.33, 0.61]), (32, 32, 32))
    centres = np.meshgrid(*(window.centres(axis) for axis in range(3)), indexing="ij")
    expected = sum(s * c for s, c in zip(slope, centres, strict=True))
    np.testing.assert_allclose(resample_image(ramp, window), expected, atol=1e-3)


def test_labels_keep_the_volume_of_thin_structures_at_half_resolution() -> None:
    label = np.zeros((64, 64, 64), np.uint8)
    label[20, :, :] = 3  # a sheet one voxel thick
    label[:, 40:42, 40:42] = 5
    window = Window(np.zeros(3), np.full(3, 2.0), (32, 32, 32))
    got = resample_label(label, window)
    assert (got[10] == 3).mean() > 0.98
    assert (got == 5).any(axis=(1, 2)).mean() > 0.9
    assert set(np.unique(got)) == {0, 3, 5}


def test_labels_on_their_own_grid_are_unchanged() -> None:
    label = ellipsoids((20, 30, 25))
    window = Window(np.zeros(3), np.ones(3), (20, 30, 25))
    np.testing.assert_array_equal(resample_label(label, window), label)

"""Planes, features per plane and FID per plane."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from metrics.fid import fid_per_plane, plane_features
from metrics.frechet import frechet_distance
from metrics.planes import PLANES, normal_axis, reorient

Features = dict[str, NDArray[np.float64]]

ALL_AXES = [
    "".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)
]


class Profile:
    """Mean of every slice along the first axis: tells the planes apart by hand."""

    name, sha256, dim, protocol = "profile", "", 4, "reorient"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float64]:
        self.batches.append(len(volumes))
        return np.asarray(volumes.mean(axis=(2, 3)), dtype=np.float64)


def test_ras_normals() -> None:
    assert [normal_axis(plane) for plane in PLANES] == [2, 0, 1]


@pytest.mark.parametrize("axes", ALL_AXES)
@pytest.mark.parametrize("plane", PLANES)
def test_the_normal_agrees_with_nibabel(axes: str, plane: Any) -> None:
    """Along the normal, nibabel's world coordinate of the plane (x, y or z) is what changes."""
    orientation = nibabel.orientations.axcodes2ornt(axes)
    affine = np.linalg.inv(nibabel.orientations.inv_ornt_aff(orientation, (4, 5, 6)))
    assert "".join(nibabel.aff2axcodes(affine)) == axes
    world = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    assert affine[world, normal_axis(plane, axes)] != 0


def test_reorient_puts_the_normal_first_and_keeps_the_order() -> None:
    volumes = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert reorient(volumes, "sagittal").shape == (2, 3, 4, 5)
    assert reorient(volumes, "coronal").shape == (2, 4, 3, 5)
    axial = reorient(volumes, "axial")
    assert axial.shape == (2, 5, 3, 4)
    assert axial[1, 4, 2, 3] == volumes[1, 2, 3, 4]
    assert np.shares_memory(axial, volumes)
    assert reorient(volumes, "axial", "SPL").shape == (2, 3, 4, 5)


@pytest.mark.parametrize("axes", ["RA", "RLS", "RASA", "ras", "XYZ", ""])
def test_refuses_axes(axes: str) -> None:
    with pytest.raises(ValueError, match=f"Axes '{axes}'"):
        normal_axis("axial", axes)


def test_refuses_planes_and_shapes() -> None:
    with pytest.raises(ValueError, match="Plane 'oblique'"):
        normal_axis("oblique")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(4, 4, 4\)"):
        reorient(np.zeros((4, 4, 4)), "axial")


def test_features_come_per_plane_batch_by_batch_from_a_mapped_file(tmp_path: Path) -> None:
    volumes = np.random.default_rng(0).random((5, 4, 4, 4)).astype(np.float16)
    np.save(tmp_path / "images.npy", volumes)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    extractor = Profile()
    features = plane_features(mapped, extractor, axes="SRA", batch_size=2)
    assert extractor.batches == [2, 2, 2, 2, 2, 2, 1, 1, 1]
    exact = volumes.astype(np.float64)
    for plane, others in {"axial": (2, 3), "sagittal": (1, 3), "coronal": (1, 2)}.items():
        assert features[plane].dtype == np.float64
        np.testing.assert_allclose(features[plane], exact.mean(axis=others), rtol=1e-6)


class SliceMeans:
    """Mean and maximum of every slice that it is given."""

    name, sha256, dim, protocol = "slice-means", "", 2, "2.5d"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float64]:
        self.shapes.append(volumes.shape)
        values = volumes.reshape(len(volumes), -1).astype(np.float64)
        return np.stack([values.mean(axis=1), values.max(axis=1)], axis=1)


@pytest.mark.parametrize("axes", ["RAS", "SRA", "PIL"])
def test_by_2_5d_every_slice_along_the_normal_is_seen_once(axes: str) -> None:
    volumes = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float32)
    extractor = SliceMeans()
    features = plane_features(volumes, extractor, axes, batch_size=2)
    assert len(extractor.shapes) == 3 * 3  # one call per volume and plane
    for plane in PLANES:
        axis = 1 + normal_axis(plane, axes)
        others = tuple(a for a in (1, 2, 3) if a != axis)
        assert features[plane].shape == (3, volumes.shape[axis], 2)
        mean = volumes.astype(np.float64).mean(axis=others)
        np.testing.assert_allclose(features[plane][..., 0], mean, rtol=1e-6)
        np.testing.assert_array_equal(features[plane][..., 1], volumes.max(axis=others))


def test_slices_of_all_volumes_are_pooled() -> None:
    rng = np.random.default_rng(2)
    real: Features = {plane: rng.normal(size=(4, 6, 3)) for plane in PLANES}
    synthetic: Features = {plane: rng.normal(1, size=(5, 6, 3)) for plane in PLANES}
    distances = fid_per_plane(real, synthetic)
    for plane in PLANES:
        rows = [np.concatenate(list(features[plane])) for features in (real, synthetic)]
        assert [len(r) for r in rows] == [24, 30]
        assert distances[plane] == frechet_distance(*rows)
    shuffled: Features = {plane: synthetic[plane][:, ::-1] for plane in PLANES}
    assert fid_per_plane(real, shuffled) == pytest.approx(distances, rel=1e-9)


@pytest.mark.parametrize("give", [np.zeros((2, 3)), np.zeros((4, 2)), np.full((4, 4), np.nan)])
def test_an_extractor_that_gives_something_else_is_named(give: NDArray[np.float64]) -> None:
    class Wrong(Profile):
        name = "wrong"

        def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float64]:
            return give

    with pytest.raises(ValueError, match=r"extractor wrong gave .*expected finite .*\(4, 4\)"):
        plane_features(np.zeros((4, 4, 4, 4)), Wrong())


def test_an_unknown_protocol_is_refused() -> None:
    class Volume(Profile):
        protocol = "volume"

    with pytest.raises(ValueError, match=r"protocol 'volume'; expected one of reorient, 2\.5d"):
        plane_features(np.zeros((2, 4, 4, 4)), Volume())


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "Volume 3"), (2.0, "from 0 to 2"), (-1.0, "from -1 to 0")]
)
def test_volumes_outside_the_range_are_named(value: float, message: str) -> None:
    volumes = np.zeros((5, 4, 4, 4), dtype=np.float32)
    volumes[3, 0, 0, 0] = value
    with pytest.raises(ValueError, match=message):
        plane_features(volumes, Profile(), batch_size=2)
    with pytest.raises(ValueError, match="N >= 1"):
        plane_features(volumes[:0], Profile())


def test_fid_per_plane_and_its_average() -> None:
    rng = np.random.default_rng(1)
    real: Features = {plane: rng.normal(size=(9, 3)) for plane in PLANES}
    synthetic: Features = {
        plane: rng.normal(shift, size=(7, 3)) for shift, plane in enumerate(PLANES)
    }
    distances = fid_per_plane(real, synthetic)
    for plane in PLANES:
        assert distances[plane] == frechet_distance(real[plane], synthetic[plane])
    assert distances["average"] == pytest.approx(sum(distances[p] for p in PLANES) / 3)
    assert list(distances) == [*PLANES, "average"]


def test_fid_refuses_different_planes() -> None:
    features: Features = {plane: np.zeros((3, 2)) for plane in PLANES}
    with pytest.raises(ValueError, match="the same planes"):
        fid_per_plane(features, {"axial": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="the same planes"):
        fid_per_plane({}, {})

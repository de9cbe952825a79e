"""The texture descriptor orders degradations of volumes whose order is known."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from bench.datasets.phantom import phantom_case
from metrics.extractors.texture import TextureExtractor
from metrics.fid import fid_per_plane, plane_features
from metrics.planes import PLANES

DATA = Path(__file__).parents[3] / "shared" / "data"

Volumes = NDArray[np.float32]
Features = dict[str, NDArray[np.float64]]


def features(volumes: NDArray[np.floating], axes: str = "RAS") -> Features:
    return plane_features(np.clip(volumes, 0, 1), TextureExtractor(), axes)


def smooth_volumes(n: int, seed: int, shape: tuple[int, int, int] = (32, 32, 32)) -> Volumes:
    """Random fields, a stand-in for scans: one anatomy, n variations of it, a fine texture."""
    rng = np.random.default_rng(seed)

    def field(count: int, sigma: float) -> NDArray[np.float64]:
        smooth = gaussian_filter(rng.normal(size=(count, *shape)), (0, sigma, sigma, sigma))
        return np.asarray(smooth / smooth.std())

    fields = 0.15 * field(1, 4) + 0.05 * field(n, 4) + 0.05 * field(n, 1)
    return np.clip(0.5 + fields, 0, 1).astype(np.float32)


def scans(folder: str, n: int, shape: tuple[int, int, int], part: float = 1) -> Volumes:
    """n scans of a set in ../shared/data, or the middle part of their slices, on one grid."""
    paths = sorted((DATA / folder / "imagesTr").glob("*.nii.gz"))
    if not paths:
        pytest.skip(f"the volumes of {folder} are not in ../shared/data")
    volumes = []
    for index in np.random.default_rng(0).permutation(len(paths))[:n]:
        volume = np.asarray(nibabel.load(paths[index]).dataobj, dtype=np.float32)
        x, y = (round(side * (1 - part) / 2) for side in volume.shape[:2])
        volume = volume[x : volume.shape[0] - x, y : volume.shape[1] - y]
        low, high = np.percentile(volume, (0.5, 99.5))
        factors = [side / old for side, old in zip(shape, volume.shape, strict=True)]
        volumes.append(zoom((volume - low) / (high - low), factors, order=1))
    return np.asarray(np.clip(np.stack(volumes), 0, 1), dtype=np.float32)


SOURCES: dict[str, Callable[[], Volumes]] = {
    "smooth": lambda: smooth_volumes(28, seed=0),
    "hippocampus": lambda: scans("msd-hippocampus", 36, (32, 40, 32)),
    "chaos": lambda: scans("chaos-t2-liver", 20, (64, 64, 32)),
    "phantom": lambda: np.stack([phantom_case(i, 0, (32, 32, 32)).image for i in range(28)]),
}


def degradations(real: Volumes) -> dict[str, Volumes]:
    rng = np.random.default_rng(1)

    def blur(sigma: float) -> Volumes:
        return np.asarray(gaussian_filter(real, (0, sigma, sigma, sigma)))

    def noise(deviation: float) -> Volumes:
        return (real + rng.normal(0, deviation, real.shape)).astype(np.float32)

    return {
        "train": real,
        "blur .5": blur(0.5),
        "blur 1": blur(1),
        "blur 2": blur(2),
        "noise .02": noise(0.02),
        "noise .1": noise(0.1),
        "average": np.broadcast_to(real.mean(axis=0), real.shape).astype(np.float32),
        "uniform": rng.random(real.shape, dtype=np.float32),
    }


@pytest.mark.parametrize("source", list(SOURCES))
def test_order(source: str) -> None:
    test, train = np.array_split(SOURCES[source](), 2)
    real = features(test)
    scores = {
        name: fid_per_plane(real, features(fake)) for name, fake in degradations(train).items()
    }
    for plane in (*PLANES, "average"):
        order = {name: score[plane] for name, score in scores.items()}
        assert order["train"] < order["blur .5"] < order["blur 1"] < order["blur 2"]
        assert order["train"] < order["noise .02"] < order["noise .1"]
        assert order["train"] < order["average"]
        assert min(order, key=order.__getitem__) == "train"
        assert max(order, key=order.__getitem__) == "uniform"
        # Wide margins where the degradation is plain to see.
        assert order["blur 1"] > 3 * order["train"]
        assert order["noise .1"] > 3 * order["train"]


def test_scans_of_unequal_sharpness_hide_no_slight_blur_or_noise() -> None:
    """However the twenty scans are halved, and with ten in each half."""
    volumes = scans("chaos-t2-liver", 20, (64, 64, 32), part=0.5)
    degraded = degradations(volumes)
    rows = {name: features(degraded[name]) for name in ("train", "blur .5", "noise .02")}
    for seed in range(20):
        test, train = np.array_split(np.random.default_rng(seed).permutation(len(volumes)), 2)
        real = {plane: values[test] for plane, values in rows["train"].items()}
        order = {
            name: fid_per_plane(real, {p: v[train] for p, v in fake.items()})["average"]
            for name, fake in rows.items()
        }
        assert min(order, key=order.__getitem__) == "train"


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_slices_that_jump_show_in_the_other_planes(axis: int) -> None:
    """Each plane scores what is seen in it; features permuted by a turn would score alike."""
    volumes = smooth_volumes(24, seed=2)
    test, train = np.array_split(volumes, 2)
    shape = [len(train), 1, 1, 1]
    shape[axis] = train.shape[axis]
    jumping = train + np.random.default_rng(3).normal(0, 0.05, shape)
    real = features(test)
    floor = fid_per_plane(real, features(train))
    excess = {k: v - floor[k] for k, v in fid_per_plane(real, features(jumping)).items()}
    own = {1: "sagittal", 2: "coronal", 3: "axial"}[axis]
    for plane in set(PLANES) - {own}:
        assert excess[plane] > 10 * abs(excess[own])
        assert excess[plane] > floor[plane]


def test_a_turned_array_with_turned_axes_has_the_same_features_per_plane() -> None:
    volumes = smooth_volumes(2, seed=4, shape=(32, 40, 48))
    ras, asr = features(volumes, "RAS"), features(np.transpose(volumes, (0, 2, 3, 1)), "ASR")
    # "axial" slices keep their axes' order, the others are transposed: a permutation of features.
    for plane in PLANES:
        np.testing.assert_allclose(np.sort(ras[plane]), np.sort(asr[plane]), rtol=1e-4, atol=1e-4)
    assert not np.allclose(np.sort(ras["axial"]), np.sort(ras["coronal"]), rtol=1e-2)


def test_a_volume_depends_on_no_other_and_on_no_run() -> None:
    extractor = TextureExtractor()
    volumes = smooth_volumes(5, seed=5)
    together = extractor(volumes)
    assert together.shape == (5, extractor.dim)
    np.testing.assert_array_equal(together, np.concatenate([extractor(v[None]) for v in volumes]))
    np.testing.assert_array_equal(together, TextureExtractor()(volumes))
    np.testing.assert_array_equal(together[::-1], extractor(volumes[::-1]))
    assert (extractor.name, extractor.sha256) == ("texture", "")
    assert (extractor.protocol, extractor.needs_weights) == ("reorient", False)


def test_neither_batch_size_nor_order_changes_features_in_any_plane() -> None:
    extractor = TextureExtractor()
    volumes = smooth_volumes(7, seed=10)
    alone = [plane_features(volume[None], extractor, "RAS") for volume in volumes]
    order = np.random.default_rng(11).permutation(7)
    for batch_size in (1, 3, 7):
        found = plane_features(volumes, extractor, "RAS", batch_size)
        turned = plane_features(volumes[order], extractor, "RAS", batch_size)
        for plane in PLANES:
            expected = np.concatenate([row[plane] for row in alone])
            np.testing.assert_allclose(found[plane], expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(turned[plane], expected[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [np.zeros, np.ones, lambda shape: np.pad(np.ones((1, 6, 6, 6)), ((0, 0), *[(13, 13)] * 3))],
    ids=["black", "white", "box"],
)
def test_flat_regions_are_finite_and_no_outliers(
    make: Callable[[tuple[int, ...]], NDArray[np.float64]],
) -> None:
    """All features stay within a few times the range the real ones have."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = TextureExtractor()(make((1, 32, 32, 32)))
    assert np.isfinite(row).all()
    assert np.abs(row).max() < 4 * np.abs(TextureExtractor()(smooth_volumes(4, seed=6))).max()


def test_padding_does_not_outweigh_texture_and_black_need_not_be_exact() -> None:
    volumes = smooth_volumes(24, seed=7)
    padded = volumes.copy()
    padded[:, :8], padded[:, -8:] = 0, 0
    test, train = np.array_split(padded, 2)
    real = features(test)
    floor = fid_per_plane(real, features(train))["average"]
    almost = train + np.random.default_rng(8).uniform(0, 1e-3, train.shape)
    assert fid_per_plane(real, features(almost))["average"] < 1.2 * floor
    blurred = gaussian_filter(train, (0, 1, 1, 1))
    assert fid_per_plane(real, features(blurred))["average"] > 3 * floor


@pytest.mark.parametrize("shape", [(32, 32, 32), (48, 64, 40), (12, 70, 33), (4, 4, 64)])
def test_the_number_of_features_is_the_same_on_every_grid(shape: tuple[int, int, int]) -> None:
    for plane in PLANES:
        rows = features(np.random.default_rng(9).random((2, *shape), dtype=np.float32))[plane]
        assert rows.shape == (2, TextureExtractor.dim)
        assert np.isfinite(rows).all()


def test_refuses_weights_and_shapes() -> None:
    with pytest.raises(ValueError, match="neither weights nor preprocessing"):
        TextureExtractor(preprocess="symmetric")
    for shape in ((32, 32, 32), (1, 3, 32, 32), (1, 32, 32, 2)):
        with pytest.raises(ValueError, match="sides of at least 4"):
            TextureExtractor()(np.zeros(shape))

"""Sizes of structures in known scenes, and their two-sample tests against exact probabilities."""

from __future__ import annotations

from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from skimage.measure import label as skimage_label

from metrics.structures import Sizes, compare_sizes, sizes_of_all, structure_sizes

Labels = NDArray[np.uint8]

label_maps = arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2))


def sizes(volumes: object, counts: object | None = None) -> Sizes:
    """Sizes from columns of ml and of parts."""
    ml = np.asarray(volumes, dtype=np.float64)
    return Sizes(ml, (ml > 0).astype(np.int64) if counts is None else np.asarray(counts))


def test_volumes_and_parts_of_a_known_scene() -> None:
    scene = np.zeros((10, 10, 10), dtype=np.uint8)
    scene[:2, :5, :10] = 1  # 100 voxels
    scene[4, 4, 4] = scene[5, 5, 5] = 2  # share a corner
    scene[8, 8, 8] = 2
    found = structure_sizes(scene, (1, 2, 3), (2.0, 0.5, 3.0))  # 3 mm³
    np.testing.assert_allclose(found.volume_ml, [0.3, 0.009, 0.0])
    np.testing.assert_array_equal(found.components, [1, 2, 0])
    np.testing.assert_array_equal(found.absent, [0, 0, 1])


@settings(max_examples=60, deadline=None)
@given(label_maps)
def test_sizes_equal_those_of_scikit_image(scene: Labels) -> None:
    found = structure_sizes(scene, (1, 2), (1.0, 2.0, 0.5))
    for i, value in enumerate((1, 2)):
        parts = skimage_label(scene == value, connectivity=3)
        assert found.components[i] == parts.max()
        assert found.volume_ml[i] == pytest.approx((scene == value).sum() / 1000)


def test_sizes_of_a_memory_mapped_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 3, (4, 5, 6, 7)).astype(np.uint8)
    maps[1][maps[1] == 2] = 0
    np.save(tmp_path / "labels.npy", maps)
    spacings = [(1.0, 1.0, 1.0 + i) for i in range(4)]
    found = sizes_of_all(np.load(tmp_path / "labels.npy", mmap_mode="r"), (1, 2), spacings)
    for i in range(4):
        one = structure_sizes(maps[i], (1, 2), spacings[i])
        np.testing.assert_array_equal(found.volume_ml[i], one.volume_ml)
        np.testing.assert_array_equal(found.components[i], one.components)
    np.testing.assert_array_equal(found.absent, [0.0, 0.25])


def test_samples_that_do_not_overlap_have_the_least_p_there_is() -> None:
    """Two of the C(2n, n) orders are as extreme, and Holm multiplies by the two structures."""
    n = 8
    low, high = np.arange(1.0, n + 1), np.arange(101.0, n + 101)
    result = compare_sizes(
        sizes(np.stack([low, low], axis=1)), sizes(np.stack([high, high], axis=1))
    )
    np.testing.assert_array_equal(result.volume_ks, [1.0, 1.0])
    np.testing.assert_allclose(result.volume_p, 2 * 2 / comb(2 * n, n), rtol=1e-9)
    np.testing.assert_array_equal(result.components_ks, [0.0, 0.0])
    np.testing.assert_array_equal(result.components_p, [1.0, 1.0])


def test_a_p_value_is_the_share_of_exchanged_samples_as_extreme() -> None:
    """The exact test by counting all ways to split the pooled volumes in two."""
    from itertools import combinations

    one, other = np.array([1.0, 4.0, 5.0, 9.0, 10.0]), np.array([2.0, 3.0, 11.0, 12.0, 13.0, 14.0])
    pooled = np.sort(np.concatenate([one, other]))

    def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        steps = [(a <= x).mean() - (b <= x).mean() for x in pooled]
        return float(np.abs(steps).max())

    splits = [
        (pooled[list(chosen)], np.delete(pooled, chosen)) for chosen in combinations(range(11), 5)
    ]
    observed = distance(one, other)
    extreme = np.mean([distance(*split) >= observed - 1e-12 for split in splits])
    result = compare_sizes(sizes(one[:, None]), sizes(other[:, None]))
    assert result.volume_ks[0] == pytest.approx(observed)
    assert result.volume_p[0] == pytest.approx(extreme)


def test_lacking_a_structure_is_a_difference_of_both() -> None:
    rng = np.random.default_rng(0)
    real = sizes(rng.uniform(1, 2, (40, 1)))
    synthetic = sizes(np.where(np.arange(40)[:, None] < 30, 0.0, real.volume_ml))
    assert synthetic.absent == 0.75
    result = compare_sizes(synthetic, real)
    assert result.volume_p[0] < 1e-6
    assert result.components_p[0] < 1e-6


def test_equal_distributions_are_rarely_told_apart() -> None:
    """Over 300 comparisons of 3 structures each, Holm keeps any false alarm at or below 5 %."""
    rng = np.random.default_rng(1)
    alarms = [
        bool(
            (
                compare_sizes(
                    sizes(rng.gamma(3, 1, (20, 3))), sizes(rng.gamma(3, 1, (25, 3)))
                ).volume_p
                <= 0.05
            ).any()
        )
        for _ in range(300)
    ]
    # Binomial: at a true rate of 5 % more than 27 of 300 has a probability below 0.2 %.
    assert 1 <= sum(alarms) <= 27


def test_refuses() -> None:
    scene = np.ones((2, 2, 2), dtype=np.uint8)
    unit = (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="label map has dtype float32"):
        structure_sizes(scene.astype(np.float32), (1,), unit)
    with pytest.raises(ValueError, match=r"label map holds the labels \[1\]"):
        structure_sizes(scene, (2,), unit)
    with pytest.raises(ValueError, match="no labels"):
        structure_sizes(scene, (), unit)
    with pytest.raises(ValueError, match="at least one voxel"):
        structure_sizes(scene[:0], (1,), unit)
    with pytest.raises(ValueError, match="above 0 mm"):
        structure_sizes(scene, (1,), (1.0, -1.0, 1.0))
    with pytest.raises(ValueError, match="no label maps"):
        sizes_of_all([], (1,), [])
    with pytest.raises(ValueError, match="Volume 1 has no spacing"):
        sizes_of_all([scene, scene], (1,), [unit])
    with pytest.raises(ValueError, match="Volume 1 has no label map"):
        sizes_of_all([scene], (1,), [unit, unit])
    two = sizes(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"synthetic sizes have shape \(1, 2\)"):
        compare_sizes(sizes(np.ones((1, 2))), two)
    with pytest.raises(ValueError, match=r"real sizes have shape \(2,\)"):
        compare_sizes(two, sizes(np.ones(2)))
    with pytest.raises(ValueError, match="of 2 structures and the real ones of 3"):
        compare_sizes(two, sizes(np.ones((2, 3))))
    with pytest.raises(ValueError, match="real sizes are not all finite"):
        compare_sizes(two, sizes([[1.0, np.nan], [1.0, 1.0]], [[1, 1], [1, 1]]))

"""Memorisation: fresh draws are flagged no more than test volumes, copies nearly always."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.stats import mannwhitneyu

from metrics.memorisation import memorisation

Array = NDArray[np.float64]


def draw(rng: np.random.Generator, n: int, d: int, kind: str) -> Array:
    """Rows of a Gaussian, of a heavy-tailed distribution, or of three clusters."""
    rows = rng.normal(size=(n, d))
    if kind == "heavy":
        rows *= np.sqrt(5 / rng.chisquare(5, size=(n, 1)))
    elif kind == "clusters":
        rows += 4 * rng.integers(0, 3, size=(n, 1))
    elif kind == "few directions":
        rows /= np.sqrt(np.arange(1, d + 1))
    return rows


def test_distances_equal_a_k_d_trees() -> None:
    rng = np.random.default_rng(0)
    train, test, synthetic = (rng.normal(size=(n, 6)) + 3 for n in (30, 12, 25))
    result = memorisation(train, test, synthetic)
    distance, nearest = KDTree(train).query(synthetic)
    of_test, _ = KDTree(train).query(test)
    np.testing.assert_array_equal(result.nearest, nearest)
    np.testing.assert_allclose(result.distance, distance, rtol=1e-9)
    assert result.median_synthetic == pytest.approx(np.median(distance))
    assert result.median_test == pytest.approx(np.median(of_test))
    assert result.near_copies == np.mean(distance < np.median(of_test) / 2)
    expected = mannwhitneyu(distance, of_test, alternative="less").pvalue
    assert result.p_value == pytest.approx(expected)


@pytest.mark.parametrize("n_test", [8, 30])
@pytest.mark.parametrize("kind", ["gaussian", "heavy", "clusters", "few directions"])
@pytest.mark.parametrize("d", [2, 6, 300])
def test_fresh_draws_are_flagged_as_often_as_test_volumes(n_test: int, kind: str, d: int) -> None:
    rng = np.random.default_rng(1)
    results = []
    for _ in range(80):
        train, test, fresh = (draw(rng, n, d, kind) for n in (40, n_test, n_test))
        results.append(memorisation(train, test, fresh))
    flagged = np.mean([r.near_copies for r in results])
    flagged_test = np.mean([r.near_copies_test for r in results])
    assert flagged == pytest.approx(flagged_test, abs=0.06)
    if d >= 6:
        assert flagged < 0.08
    # The p-value of the same draws is that of a true null hypothesis.
    assert np.mean([r.p_value < 0.05 for r in results]) < 0.15


@pytest.mark.parametrize("d", [6, 300])
def test_jittered_copies_are_caught_with_8_test_volumes(d: int) -> None:
    rng = np.random.default_rng(2)
    train, test = draw(rng, 24, d, "few directions"), draw(rng, 8, d, "few directions")
    order = rng.permutation(24)
    copies = train[order] + 0.1 * draw(rng, 24, d, "few directions")
    result = memorisation(train, test, copies)
    assert result.near_copies >= 0.95
    assert result.near_copies_test <= 0.125
    assert result.p_value < 0.001
    np.testing.assert_array_equal(result.nearest, order)
    # Half copies, half fresh: the share says so.
    half = np.vstack([copies[:12], draw(rng, 12, d, "few directions")])
    assert memorisation(train, test, half).near_copies == pytest.approx(0.5, abs=0.1)


def test_exact_copies_and_repeated_volumes() -> None:
    rng = np.random.default_rng(3)
    train, test = 1e3 + rng.normal(size=(20, 40)), 1e3 + rng.normal(size=(9, 40))
    copies = memorisation(train, test, train[[4, 4, 7]])
    assert np.all(copies.distance == 0)
    assert copies.nearest.tolist() == [4, 4, 7]
    assert copies.near_copies == 1.0
    # A blurred mean, again and again, is far from every volume: no copy, and never a nan.
    far = memorisation(train, test, np.full((9, 40), 900.0))
    assert far.near_copies == 0.0
    assert far.p_value > 0.99
    with pytest.raises(ValueError, match="median distance of the 8 test volumes"):
        memorisation(np.zeros((3, 2)), np.zeros((8, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="not in the training set"):
        memorisation(train, train[:9], train)


def test_refuses() -> None:
    x = np.random.default_rng(5).normal(size=(9, 3))
    with pytest.raises(ValueError, match="training features have 3 dimensions and the test 2"):
        memorisation(x, x[:, :2], x)
    with pytest.raises(ValueError, match="test features hold 1 row"):
        memorisation(x, x[:1], x)
    with pytest.raises(ValueError, match="synthetic features of row 3 are not finite"):
        memorisation(x, x, np.where(np.arange(9)[:, None] == 3, np.nan, x))
    with pytest.raises(ValueError, match=r"training features have shape \(0,\)"):
        memorisation(np.array([]), x, x)

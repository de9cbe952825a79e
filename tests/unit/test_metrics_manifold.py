"""Precision, recall, density and coverage against the `prdc` package, loops and known sets."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from metrics import manifold as module
from metrics.features import squared_distances
from metrics.manifold import Manifold, manifold

Array = NDArray[np.float64]


def by_distances(x: Array, y: Array, k: int) -> Manifold:
    """The definitions on distances computed pair by pair, for which equal rows have equal bits."""
    real, synthetic, cross = cdist(x, x), cdist(y, y), cdist(x, y)
    reach = np.sort(real, axis=1)[:, k]
    reach_synthetic = np.sort(synthetic, axis=1)[:, k]
    inside = cross < reach[:, None]
    return Manifold(
        inside.any(axis=0).mean(),
        (cross < reach_synthetic).any(axis=1).mean(),
        inside.sum() / (k * len(y)),
        (cross.min(axis=1) < reach).mean(),
    )


@pytest.mark.parametrize(
    ("n", "m", "d", "k"), [(40, 40, 8, 5), (30, 60, 100, 3), (9, 7, 2, 1), (144, 100, 600, 5)]
)
def test_equals_prdc(n: int, m: int, d: int, k: int, capsys: pytest.CaptureFixture[str]) -> None:
    prdc = pytest.importorskip("prdc")
    rng = np.random.default_rng(n)
    for scale, shift in ((1.0, 0.0), (0.7, 0.1), (1.2, 0.0)):
        x, y = rng.normal(size=(n, d)), scale * rng.normal(size=(m, d)) + shift
        expected = prdc.compute_prdc(x, y, k)
        assert manifold(x, y, k)._asdict() == pytest.approx(expected, rel=1e-12, abs=0)
    capsys.readouterr()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 12), st.integers(4, 12), st.integers(1, 3))
def test_ties_of_repeated_rows_are_ties(seed: int, n: int, m: int, k: int) -> None:
    """Both sets are drawn from a few rows, so that most distances occur several times."""
    rng = np.random.default_rng(seed)
    few = rng.normal(size=(5, 7)) * 10.0 ** rng.integers(-3, 4)
    x, y = few[rng.integers(0, 5, n)], few[rng.integers(0, 5, m)]
    assert manifold(x, y, k) == pytest.approx(by_distances(x, y, k), abs=1e-12)


def test_rows_in_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(31, 5)), rng.normal(size=(26, 5))
    y[3], y[4], x[2] = x[7], x[7], x[9]
    expected = by_distances(x, y, 3)
    assert manifold(x, y, 3) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(module, "_BLOCK", 4)
    assert manifold(x, y, 3) == pytest.approx(expected, abs=1e-12)


def test_generators_of_known_quality() -> None:
    rng = np.random.default_rng(2)
    real, fresh = rng.normal(size=(2, 200, 64))
    good = manifold(real, fresh)
    assert good.density == pytest.approx(1.0, abs=0.15)
    assert good.coverage == pytest.approx(1 - 2.0**-5, abs=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repeated = manifold(real, np.repeat(fresh[:1], 200, axis=0))
        far = manifold(real, fresh + 10.0)
    # One volume again and again reaches nothing itself and covers the few real ones next to it.
    assert repeated.recall == 0.0
    assert repeated.coverage < 0.3
    assert far == (0.0, 0.0, 0.0, 0.0)
    copies = manifold(real, real)
    assert copies[:2] == (1.0, 1.0)
    assert copies.density == pytest.approx(1.0)
    narrow = manifold(real, 0.5 * fresh)
    assert narrow.precision > 0.95 > 0.5 > narrow.recall


def test_distances_keep_their_digits_for_near_and_equal_rows() -> None:
    rng = np.random.default_rng(3)
    x = 1e4 + rng.normal(size=(30, 50))
    y = np.vstack([x[:10], x[10:20] + 1e-6 * rng.normal(size=(10, 50)), x[20:] + 0.5])
    squares = squared_distances(x, y)
    np.testing.assert_allclose(squares, cdist(x, y, "sqeuclidean"), rtol=1e-6)
    assert np.all(squares[np.arange(10), np.arange(10)] == 0.0)
    assert np.all(squares >= 0)


def test_refuses() -> None:
    x = np.random.default_rng(4).normal(size=(6, 3))
    with pytest.raises(ValueError, match="6 real and 5 synthetic rows and k is 5"):
        manifold(x, x[:5])
    with pytest.raises(ValueError, match="k is 0"):
        manifold(x, x, k=0)
    with pytest.raises(ValueError, match="3 dimensions and the synthetic 2"):
        manifold(x, x[:, :2])
    with pytest.raises(ValueError, match="real features of row 0 are not finite"):
        manifold(np.where(np.arange(6)[:, None] == 0, np.inf, x), x)
    assert manifold(x, x, k=5).recall == 1.0

"""The Fréchet distance against SciPy's matrix root, closed forms and its own properties."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metrics.frechet import WeightedFrechet, frechet_distance, frechet_extrapolated

Array = NDArray[np.float64]


def textbook(x: Array, y: Array) -> float:
    """The definition, with the matrix root of the product of covariances."""
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(cov_x @ cov_y))
    means = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    return float(means + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(root))


def correlated(seed: int, n: int, d: int, shift: float = 0.0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + shift


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 6), (60, 400, 20), (41, 41, 40), (3, 90, 2)])
def test_equals_the_definition_where_the_root_is_stable(n: int, m: int, d: int) -> None:
    x, y = correlated(1, n, d), correlated(2, m, d, shift=0.5)
    assert frechet_distance(x, y) == pytest.approx(textbook(x, y), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(10, 12), (10, 300), (300, 12)])
def test_fewer_volumes_than_features_is_exact(n: int, m: int) -> None:
    """Padding both sets with constant features adds nothing; it moves n > d to n < d."""
    x, y = correlated(3, n, 8), correlated(4, m, 8)
    expected = textbook(x, y)
    wide_x, wide_y = (np.hstack([z, np.zeros((len(z), 500))]) for z in (x, y))
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(508, 508)))[0]
    assert frechet_distance(wide_x @ rotation, wide_y @ rotation) == pytest.approx(
        expected, rel=1e-6
    )


def test_closed_forms() -> None:
    x = correlated(6, 30, 50)
    scale, shift = 0.5, 2.0
    trace = np.var(x, axis=0, ddof=1).sum()
    # N(µ, Σ) against N(µ + s, Σ): |s|²; against N(µ, c²Σ): (1 - c)² tr Σ.
    assert frechet_distance(x, x + shift) == pytest.approx(50 * shift**2, rel=1e-9)
    shrunk = x.mean(axis=0) + scale * (x - x.mean(axis=0))
    assert frechet_distance(x, shrunk) == pytest.approx((1 - scale) ** 2 * trace, rel=1e-9)
    # One feature: (µ - ν)² + (σ - τ)².
    a, b = np.array([[1.0], [3.0], [8.0]]), np.array([[0.0], [1.0]])
    expected = (4 - 0.5) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(2, 12),
    st.integers(2, 12),
    st.integers(1, 15),
    st.floats(1e-6, 1e6),
)
def test_properties(seed: int, n: int, m: int, d: int, scale: float) -> None:
    x, y = correlated(seed, n, d), correlated(seed + 1, m, d)
    size = np.square(x).sum() + np.square(y).sum()
    distance = frechet_distance(x, y)
    assert distance >= 0
    assert frechet_distance(x, x) <= 1e-10 * size
    assert frechet_distance(y, x) == pytest.approx(distance, abs=1e-10 * size)
    assert frechet_distance(scale * x, scale * y) == pytest.approx(
        scale**2 * distance, abs=1e-10 * scale**2 * size
    )
    order = np.random.default_rng(seed).permutation(d)
    assert frechet_distance(x[:, order], y[:, order]) == pytest.approx(distance, abs=1e-10 * size)


def test_degenerate_features_give_a_finite_number_without_a_warning() -> None:
    x = correlated(7, 20, 5)
    constant = np.full((20, 5), 3.0)
    duplicated = np.hstack([x, x, constant])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frechet_distance(constant, constant) == 0.0
        assert frechet_distance(duplicated, duplicated) == pytest.approx(0.0, abs=1e-10)
        # Against a point, the distance is the spread and the means.
        expected = np.var(x, axis=0, ddof=1).sum() + np.square(x.mean(axis=0) - 3).sum()
        assert frechet_distance(x, constant) == pytest.approx(expected)
        assert frechet_distance(np.vstack([x] * 3), np.vstack([x] * 3)) <= 1e-10
        assert np.isfinite(frechet_distance(x[:2], x[2:4]))


def test_large_offsets_and_float32_lose_no_precision() -> None:
    x, y = correlated(8, 30, 10).astype(np.float32), correlated(9, 40, 10).astype(np.float32)
    expected = frechet_distance(x.astype(np.float64), y.astype(np.float64))
    assert frechet_distance(x, y) == expected
    offset_x, offset_y = x.astype(np.float64) + 1e6, y.astype(np.float64) + 1e6
    assert frechet_distance(offset_x, offset_y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(20, 25, 300), (40, 40, 2048), (26, 60, 25), (2, 9, 8)])
def test_equals_a_stable_root_of_the_small_product(n: int, m: int, d: int) -> None:
    """With fewer volumes than features, the root is that of an n x n product of full rank.

    Helmert contrasts of the rows have the same covariance and no null direction.
    """
    x, y = correlated(10, n, d), correlated(11, m, d, shift=0.3)
    a, b = (scipy.linalg.helmert(len(z)) @ z / np.sqrt(len(z) - 1) for z in (x, y))
    product = a @ (b.T @ b) @ a.T
    root = np.real(scipy.linalg.sqrtm(product)) if n - 1 <= d else None
    if root is None:
        expected = textbook(x, y)
    else:
        means = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
        expected = means + np.square(a).sum() + np.square(b).sum() - 2 * np.trace(root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["full", "rank 1", "constant", "rows thrice", "columns twice"])
@pytest.mark.parametrize(("n", "d"), [(144, 512), (300, 20), (2, 3)])
def test_a_set_is_at_no_distance_from_itself(kind: str, n: int, d: int) -> None:
    x = correlated(12, n, d, shift=1e3)
    if kind == "rank 1":
        x = np.outer(x[:, 0], x[0])
    elif kind == "constant":
        x = np.full((n, d), 0.1)
    elif kind == "rows thrice":
        x = np.vstack([x] * 3)
    elif kind == "columns twice":
        x = np.hstack([x] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distance = frechet_distance(x, x)
    # A float constant's mean is off by its last bit, and so is its spread: hence the square.
    trace = np.var(x, axis=0, ddof=1).sum() + np.finfo(np.float64).eps ** 2
    assert 0 <= distance <= 1e-8 * trace


@pytest.mark.parametrize("spectrum", ["equal", "falling"])
def test_extrapolation_takes_the_bias_away_where_it_is_a_line(spectrum: str) -> None:
    """n = 144 and 64 features of one distribution: the true distance is 0."""
    rng = np.random.default_rng(13)
    spread = np.ones(64) if spectrum == "equal" else np.arange(1, 65) ** -0.5
    x, y = rng.normal(size=(2, 144, 64)) * spread
    biased, extrapolated = frechet_distance(x, y), frechet_extrapolated(x, y)
    assert abs(extrapolated) < 0.15 * biased
    shifted = y + 0.5 * spread
    truth = 0.25 * np.square(spread).sum()
    assert abs(frechet_extrapolated(x, shifted) - truth) < 0.25 * abs(
        frechet_distance(x, shifted) - truth
    )


@pytest.mark.parametrize("d", [128, 512, 2048])
def test_extrapolation_helps_with_fewer_volumes_than_features(d: int) -> None:
    """The bias is then no line in 1/n any more: a part of it stays, and less is still better."""
    rng = np.random.default_rng(14)
    spread = np.arange(1, d + 1) ** -0.5
    x, y = rng.normal(size=(2, 144, d)) * spread
    assert 0 < frechet_extrapolated(x, y) < 0.8 * frechet_distance(x, y)
    shifted = y + 0.5 * spread
    truth = 0.25 * np.square(spread).sum()
    biased = frechet_distance(x, shifted)
    assert abs(frechet_extrapolated(x, shifted) - truth) < 0.85 * (biased - truth)


def test_extrapolation_repeats_and_takes_few_or_unequal_volumes() -> None:
    x, y = correlated(15, 8, 30), correlated(16, 11, 30)
    assert frechet_extrapolated(x, y) == frechet_extrapolated(x, y)
    assert frechet_extrapolated(x, y) != frechet_extrapolated(x, y, seed=1)
    assert frechet_extrapolated(x, y) < frechet_distance(x, y)
    assert frechet_extrapolated(x, x) <= frechet_extrapolated(x, y)
    with pytest.raises(ValueError, match=r"7 real and 11 synthetic volumes; .* at least 8"):
        frechet_extrapolated(x[:7], y)
    with pytest.raises(ValueError, match="30 dimensions and the synthetic 29"):
        frechet_extrapolated(x, y[:, :29])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(2, 9), st.integers(1, 12))
def test_a_resample_is_the_distance_of_the_rows_it_repeats(
    seed: int, n: int, m: int, d: int
) -> None:
    x, y = correlated(seed, n, d, shift=50.0), correlated(seed + 1, m, d)
    rng = np.random.default_rng(seed)
    counts = [np.bincount(rng.integers(0, size, size), minlength=size) for size in (n, m)]
    expected = frechet_distance(np.repeat(x, counts[0], axis=0), np.repeat(y, counts[1], axis=0))
    pair = WeightedFrechet(x, y)
    assert pair.distance(*counts) == pytest.approx(expected, rel=1e-8)
    whole = pair.distance(np.ones(n, dtype=int), np.ones(m, dtype=int))
    assert whole == pytest.approx(frechet_distance(x, y), rel=1e-8)


def test_a_resample_draws_all_slices_of_a_volume() -> None:
    rng = np.random.default_rng(17)
    for slices, d in ((3, 40), (9, 4)):
        x, y = rng.normal(size=(5, slices, d)), rng.normal(size=(6, slices, d))
        u, v = np.array([2, 0, 1, 1, 1]), np.array([0, 1, 3, 1, 0, 1])
        expected = frechet_distance(
            np.repeat(x, u, axis=0).reshape(-1, d), np.repeat(y, v, axis=0).reshape(-1, d)
        )
        assert WeightedFrechet(x, y).distance(u, v) == pytest.approx(expected, rel=1e-8)
    with pytest.raises(ValueError, match="1 real and 2 synthetic rows"):
        WeightedFrechet(x[:, 0], y[:, 0]).distance(
            np.array([1, 0, 0, 0, 0]), np.eye(6, dtype=int)[0] * 2
        )


@pytest.mark.parametrize(
    ("real", "synthetic", "message"),
    [
        (np.zeros(5), np.zeros((5, 1)), r"real features have shape \(5,\)"),
        (np.zeros((5, 0)), np.zeros((5, 0)), "d >= 1"),
        (np.zeros((1, 3)), np.zeros((5, 3)), "at least 2"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 dimensions and the synthetic 4"),
        (np.zeros((5, 3)), np.array([[0, 1, 2], [0, np.nan, 1]]), "synthetic features of row 1"),
        (np.array([[np.inf], [0.0]]), np.zeros((2, 1)), "real features of row 0"),
    ],
)
def test_refuses(real: Array, synthetic: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(real, synthetic)

"""Kernel distances against other libraries, their expectation and their own properties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from metrics import kernel
from metrics.kernel import kernel_distance, rbf_mmd

Array = NDArray[np.float64]


def by_loops(x: Array, y: Array, k: Callable[[Array, Array], Array]) -> float:
    """The estimate as Gretton et al. write it, one pair after the other."""
    xx, yy, xy = k(x, x), k(y, y), k(x, y)
    n, m = len(x), len(y)
    total = sum(xx[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    total += sum(yy[i, j] for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return float(total - 2 * sum(xy[i, j] for i in range(n) for j in range(m)) / (n * m))


@pytest.mark.parametrize(("n", "m", "d"), [(12, 12, 5), (2, 9, 30), (15, 4, 1), (2, 2, 2)])
def test_equals_the_sums_over_scikit_learns_kernels(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 0.4
    expected = by_loops(x, y, lambda a, b: polynomial_kernel(a, b, degree=3, coef0=1))
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    sigma = float(np.median(pdist(x)))
    for bandwidth, used in ((None, sigma), (0.7, 0.7)):
        expected = by_loops(x, y, lambda a, b, s=used: rbf_kernel(a, b, gamma=0.5 / s**2))
        assert rbf_mmd(x, y, bandwidth) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_equals_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 64)), 0.7 * rng.normal(size=(40, 64)) + 0.3
    expected = float(kid.poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("metric", [kernel_distance, rbf_mmd])
def test_its_expectation_is_0_for_one_distribution_and_not_for_two(
    metric: Callable[[Array, Array], float],
) -> None:
    rng = np.random.default_rng(1)
    same, other = [], []
    for _ in range(400):
        x, y = rng.normal(size=(2, 8, 6)) + 1.0
        same.append(metric(x, y))
        other.append(metric(x, 1.5 * y))
    error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 3 * error
    assert np.mean(other) > 5 * np.std(other) / np.sqrt(len(other))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(2, 8), st.integers(1, 6))
def test_properties(seed: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    assert kernel_distance(x, y) == pytest.approx(kernel_distance(y, x), abs=1e-9)
    assert rbf_mmd(x, y, 1.0) == pytest.approx(rbf_mmd(y, x, 1.0), abs=1e-12)
    # Rotations, shifts and units change no distance, and the default bandwidth follows.
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    expected = rbf_mmd(x, y)
    assert rbf_mmd(3 * x @ rotation + 5, 3 * y @ rotation + 5) == pytest.approx(expected, abs=1e-9)
    assert kernel_distance(x @ rotation, y @ rotation) == pytest.approx(
        kernel_distance(x, y), abs=1e-9
    )


def test_rows_in_blocks_give_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(23, 4)), rng.normal(size=(17, 4))
    expected = kernel_distance(x, y), rbf_mmd(x, y)
    monkeypatch.setattr(kernel, "_BLOCK", 5)
    assert (kernel_distance(x, y), rbf_mmd(x, y)) == pytest.approx(expected, rel=1e-12)


def test_equal_rows() -> None:
    constant = np.full((4, 3), 2.0)
    assert kernel_distance(constant, constant) == pytest.approx(0.0, abs=1e-9)
    assert rbf_mmd(constant, constant, bandwidth=1.0) == 0.0
    # Against rows infinitely far by the kernel's measure: 1 + 1 - 0.
    assert rbf_mmd(constant, constant + 1e6, bandwidth=1.0) == pytest.approx(2.0)
    with pytest.raises(ValueError, match=r"bandwidth is 0; .*most real rows are equal"):
        rbf_mmd(constant, constant)


@pytest.mark.parametrize("metric", [kernel_distance, rbf_mmd])
def test_refuses(metric: Callable[..., float]) -> None:
    x = np.random.default_rng(3).normal(size=(5, 3))
    with pytest.raises(ValueError, match="3 dimensions and the synthetic 2"):
        metric(x, x[:, :2])
    with pytest.raises(ValueError, match="real features hold 1 row"):
        metric(x[:1], x)
    with pytest.raises(ValueError, match="synthetic features of row 2 are not finite"):
        metric(x, np.where(np.arange(5)[:, None] == 2, np.nan, x))
    for bandwidth in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="expected a positive number"):
            rbf_mmd(x, x, bandwidth)

"""Intervals of set scores: their coverage on Gaussians, their pairing and their fast path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from metrics.frechet import frechet_distance
from metrics.intervals import (
    INTERVAL_METHOD,
    centred_interval,
    frechet_resamples,
    resampled,
)
from metrics.kernel import kernel_distance

Array = NDArray[np.float64]


def pairs(n: int, d: int, same: bool) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    """Draws two sets of a Gaussian with a falling spectrum, or of two that differ."""
    spread = np.arange(1, d + 1) ** -0.5
    scale, shift = (1.0, 0.0) if same else (0.8, 0.5)

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        x, y = rng.normal(size=(2, n, d)) * spread
        return x, scale * y + shift * spread

    return draw


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("d", [8, 64, 256])
@pytest.mark.parametrize("n", [16, 64])
def test_the_interval_holds_the_expected_distance_at_this_n(n: int, d: int, same: bool) -> None:
    rng = np.random.default_rng([n, d, same])
    draw = pairs(n, d, same)
    scores = [frechet_distance(*draw(rng)) for _ in range(300)]
    expected = np.mean(scores)
    repetitions, resamples = (150 if n == 16 else 100), 50
    held = naive = 0
    width = 0.0
    for repetition in range(repetitions):
        x, y = draw(rng)
        replicates = frechet_resamples(x, y, resamples, seed=repetition)
        low, high = centred_interval(frechet_distance(x, y), replicates)
        width += (high - low) / repetitions
        held += low <= expected <= high
        naive += np.quantile(replicates, 0.025) <= expected <= np.quantile(replicates, 0.975)
    assert 0.88 <= held / repetitions <= 1.0
    # Not by being endless: at most 2.5 times what the spread between sets asks for.
    assert width < 2.5 * np.ptp(np.quantile(scores, [0.025, 0.975]))
    if d > 8:  # the bias of the resamples is what the centring takes out
        assert naive / repetitions < 0.5


def test_the_interval_of_a_kernel_distance_holds_its_expectation() -> None:
    rng = np.random.default_rng(0)
    draw = pairs(24, 16, same=False)
    expected = np.mean([kernel_distance(*draw(rng)) for _ in range(2000)])
    held = 0
    for repetition in range(100):
        x, y = draw(rng)
        replicates = resampled(kernel_distance, x, y, 60, seed=repetition)
        low, high = centred_interval(kernel_distance(x, y), replicates)
        held += low <= expected <= high
    assert 0.88 <= held / 100 <= 1.0


@pytest.mark.parametrize(
    ("shape_x", "shape_y"),
    [
        ((20, 50), (20, 50)),
        ((30, 8), (12, 8)),
        ((2, 5), (3, 5)),
        ((6, 4, 40), (7, 3, 40)),
        ((6, 9, 10), (7, 8, 10)),
    ],
)
def test_the_fast_path_equals_the_generic_one(
    shape_x: tuple[int, ...], shape_y: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=shape_x) + 5, 2 * rng.normal(size=shape_y)
    fast = frechet_resamples(x, y, n_resamples=30, seed=4)
    generic = resampled(frechet_distance, x, y, n_resamples=30, seed=4)
    np.testing.assert_allclose(fast, generic, rtol=1e-8)
    assert len(set(fast.round(9))) > 10


def test_replicates_are_paired_across_generators_and_planes() -> None:
    rng = np.random.default_rng(2)
    real = rng.normal(size=(9, 3))
    one, other, more = rng.normal(size=(9, 3)), rng.normal(size=(9, 3)), rng.normal(size=(14, 3))
    real_means = [
        resampled(lambda x, _: x.mean(axis=0), real, s, 12, seed=5) for s in (one, other, more)
    ]
    assert real_means[0].shape == (12, 3)
    np.testing.assert_array_equal(real_means[0], real_means[1])
    np.testing.assert_array_equal(real_means[0], real_means[2])
    # Resample r is the same however many are drawn, and another with another seed.
    fewer = resampled(lambda x, _: x.mean(axis=0), real, one, 4, seed=5)
    np.testing.assert_array_equal(fewer, real_means[0][:4])
    assert not np.allclose(resampled(lambda x, _: x.mean(axis=0), real, one, 4, seed=6), fewer)
    # Real and synthetic volumes are drawn independently, each in its own right.
    drawn = resampled(
        lambda x, y: np.stack([x[:, 0], y[:, 0]]),
        np.arange(9)[:, None] * [[1.0]],
        np.arange(9)[:, None] * [[1.0]],
        200,
        seed=5,
    )
    assert not np.array_equal(drawn[:, 0], drawn[:, 1])
    for side in (0, 1):
        counts = np.bincount(drawn[:, side].astype(int).ravel(), minlength=9)
        assert counts.sum() == 1800
        assert np.all(np.abs(counts - 200) < 60)


def test_volumes_are_drawn_with_all_their_slices() -> None:
    features = np.arange(5.0)[:, None, None] + np.zeros((5, 4, 2))
    rows = resampled(lambda x, _: np.sort(x[:, 0]), features, features[:3], 20)
    assert rows.shape == (20, 20)
    counts = np.stack([np.bincount(r.astype(int), minlength=5) for r in rows])
    assert np.all(counts % 4 == 0)


def test_centred_interval() -> None:
    replicates = 7.0 + np.linspace(-1, 1, 201)
    assert centred_interval(3.0, replicates) == pytest.approx((2.05, 3.95))
    assert centred_interval(3.0, replicates, level=0.5) == pytest.approx((2.5, 3.5))
    assert centred_interval(3.0, [4.0, 4.0]) == (3.0, 3.0)
    assert "centred bootstrap" in INTERVAL_METHOD
    for bad, message in (
        ([1.0], "at least 2"),
        ([[1.0, 2.0]], r"shape \(1, 2\)"),
        ([1.0, np.nan, np.inf], "2 of 3 replicates are not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            centred_interval(0.0, bad)
    with pytest.raises(ValueError, match="value is nan"):
        centred_interval(float("nan"), replicates)
    with pytest.raises(ValueError, match="level is 95"):
        centred_interval(0.0, replicates, level=95)


def test_refuses() -> None:
    x = np.random.default_rng(3).normal(size=(5, 3))
    for draw in (resampled, lambda _, *rest, **kw: frechet_resamples(*rest, **kw)):
        with pytest.raises(ValueError, match="n_resamples is 0"):
            draw(frechet_distance, x, x, n_resamples=0)
        with pytest.raises(ValueError, match=r"real features .*expected|real features hold 1 row"):
            draw(frechet_distance, x[:1], x)
        with pytest.raises(ValueError, match="3 dimensions and the synthetic 2"):
            draw(frechet_distance, x, x[:, :2])
        with pytest.raises(ValueError, match=r"shape \(5,\)"):
            draw(frechet_distance, x, x[:, 0])
    with pytest.raises(ValueError, match="row 1 are not finite"):
        frechet_resamples(np.where(np.arange(5)[:, None] == 1, np.nan, x), x)

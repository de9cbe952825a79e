"""Gains and intervals against closed forms, another bootstrap, and the paper's own tables."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from metrics.statistics import bootstrap_interval, paired_gain, relative_gain

# 3D-LLDM (arXiv 2603.23845), Table 2: mean Dice R and R+S of five segmenters.
TABLE_2 = {
    "Liver": (
        [0.9650, 0.9633, 0.9657, 0.9541, 0.9289],
        [0.9662, 0.9634, 0.9661, 0.9736, 0.9677],
    ),
    "Vein": (
        [0.7905, 0.7197, 0.7230, 0.6958, 0.6908],
        [0.8667, 0.7902, 0.7989, 0.7540, 0.7212],
    ),
    "HCC": (
        [0.7334, 0.7108, 0.7251, 0.7002, 0.6350],
        [0.8152, 0.7646, 0.7857, 0.7674, 0.6825],
    ),
    "Multi-class": (
        [0.6968, 0.6601, 0.6961, 0.6983, 0.5584],
        [0.7014, 0.6652, 0.7020, 0.7340, 0.5937],
    ),
}
PRINTED_MEANS = {
    "Liver": (0.9544, 0.9674),
    "Vein": (0.7240, 0.7862),
    "HCC": (0.7009, 0.7631),
    "Multi-class": (0.6619, 0.6793),
}


@pytest.mark.parametrize("task", ["Vein", "HCC", "Multi-class"])
def test_the_papers_means_and_gains_follow_from_its_table(task: str) -> None:
    r, rs = np.mean(TABLE_2[task], axis=1)
    assert (r, rs) == pytest.approx(PRINTED_MEANS[task], abs=1e-4)
    printed = 100 * (PRINTED_MEANS[task][1] / PRINTED_MEANS[task][0] - 1)
    assert relative_gain(r, rs) == pytest.approx(printed, abs=0.02)


def test_the_papers_liver_gain_is_the_one_that_does_not() -> None:
    """The column's mean of R is .9554; the .9544 printed makes 1.362 % of a gain of 1.256 %."""
    r, rs = np.mean(TABLE_2["Liver"], axis=1)
    assert r == pytest.approx(0.9554, abs=5e-5)
    assert relative_gain(r, rs) == pytest.approx(1.256, abs=5e-4)
    assert relative_gain(*PRINTED_MEANS["Liver"]) == pytest.approx(1.362, abs=5e-4)


def test_relative_gain() -> None:
    assert relative_gain(0.5, 0.6) == pytest.approx(20.0)
    assert relative_gain(0.5, 0.25) == pytest.approx(-50.0)
    assert np.isnan(relative_gain(0.0, 0.5))
    assert np.isnan(relative_gain(float("nan"), 0.5))


def test_the_interval_of_a_mean_is_the_normal_one_at_large_n() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    low, high = bootstrap_interval(values, n_resamples=3000)
    half = 1.959964 * values.std(ddof=1) / np.sqrt(values.size)
    assert low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_the_interval_equals_a_bootstrap_over_all_resamples() -> None:
    """Of 4 values, the 4⁴ equally likely resamples give the exact percentiles."""
    values = np.array([0.0, 1.0, 4.0, 9.0])
    means = values[np.stack(np.meshgrid(*[range(4)] * 4)).reshape(4, -1)].mean(axis=0)
    interval = bootstrap_interval(values, level=0.8, n_resamples=20000)
    assert interval == pytest.approx(np.percentile(means, [10, 90]), abs=1e-9)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    samples = rng.exponential(size=(300, 40))
    hits = [
        low <= 1.0 <= high
        for low, high in (bootstrap_interval(s, n_resamples=400, level=0.9) for s in samples)
    ]
    assert 0.82 <= np.mean(hits) <= 0.95


def test_the_statistic_seed_and_level_matter() -> None:
    values = np.random.default_rng(2).exponential(size=31)
    base = bootstrap_interval(values, n_resamples=500)
    assert base == bootstrap_interval(values, n_resamples=500)
    assert base != bootstrap_interval(values, n_resamples=500, seed=1)
    narrow = bootstrap_interval(values, n_resamples=500, level=0.5)
    assert base.low < narrow.low < narrow.high < base.high
    median = bootstrap_interval(values, np.median, n_resamples=500)
    assert median.low in values
    assert median.high in values


def test_degenerate_samples_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(bootstrap_interval([])).all()
        assert np.isnan(bootstrap_interval([0.7])).all()
        assert np.isnan(bootstrap_interval([0.7, np.nan])).all()
        assert bootstrap_interval([0.5, 0.5, 0.5], n_resamples=99) == (0.5, 0.5)
        assert np.isnan(paired_gain([np.nan], [np.nan]).mean)


def test_paired_gain_is_the_mean_difference_with_its_own_interval() -> None:
    rng = np.random.default_rng(3)
    r = rng.uniform(0.2, 0.9, size=50)
    rs = r + 0.05 + rng.normal(0, 0.01, size=50)
    gain = paired_gain(r, rs, n_resamples=500)
    assert gain.mean == pytest.approx(rs.mean() - r.mean())
    assert gain.n == 50
    # Only the spread of the differences (0.01) widens the interval, not that of the cases (0.2).
    half = 1.96 * (rs - r).std(ddof=1) / np.sqrt(50)
    assert (gain.interval.high - gain.interval.low) / 2 == pytest.approx(half, rel=0.15)


def test_paired_gain_leaves_out_cases_absent_from_both_and_refuses_the_rest() -> None:
    r, rs = [0.5, np.nan, 0.7], [0.6, np.nan, 0.9]
    gain = paired_gain(r, rs, n_resamples=99)
    assert gain.n == 2
    assert gain.mean == pytest.approx(0.15)
    with pytest.raises(ValueError, match="Case 1 has a score in one arm only"):
        paired_gain(r, [0.6, 0.1, 0.9])
    with pytest.raises(ValueError, match="same cases"):
        paired_gain([0.5], [0.5, 0.6])
    with pytest.raises(ValueError, match="one value per case"):
        bootstrap_interval(np.zeros((2, 2)))

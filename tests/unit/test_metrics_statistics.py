"""Gains, tests, intervals and ranks against closed forms, counting, simulation and the paper."""

from __future__ import annotations

import itertools
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metrics.statistics import (
    _quantile,
    bootstrap_interval,
    crossed_interval,
    crossed_p,
    holm,
    paired_gain,
    paired_gains,
    rank_bootstrap,
    rank_replicates,
    relative_gain,
    wilcoxon,
)

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
        nothing = paired_gain([np.nan], [np.nan])
        assert np.isnan([nothing.mean, *nothing.interval, nothing.p_value]).all()
        assert nothing.n == 0
        one = paired_gain([0.5], [0.6])
        assert (one.mean, one.n, one.p_value) == (pytest.approx(0.1), 1, 1.0)
        assert np.isnan(one.interval).all()
        same = paired_gain([0.5, 0.6], [0.5, 0.6])
        assert (same.mean, same.interval, same.p_value) == (0.0, (0.0, 0.0), 1.0)


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
    with pytest.raises(ValueError, match="Case 1 has a score in one arm or seed only"):
        paired_gain(r, [0.6, 0.1, 0.9])
    with pytest.raises(ValueError, match="Case 1 has a score in one arm or seed only"):
        paired_gain([r, [0.5, 0.1, 0.7]], [rs, [0.6, 0.2, 0.9]])
    with pytest.raises(ValueError, match="same cases"):
        paired_gain([0.5], [0.5, 0.6])
    with pytest.raises(ValueError, match="one value per case"):
        bootstrap_interval(np.zeros((2, 2)))


def test_gains_tested_together_are_those_tested_alone() -> None:
    rng = np.random.default_rng(11)
    pairs = []
    for shape in [(1, 7), (3, 7), (3, 20), (1, 60), (1, 1), (2, 2), *[(3, 20)] * 150]:
        r = rng.uniform(0.2, 0.9, shape)
        rs = r + rng.normal(0.02, 0.05, shape)
        if len(pairs) % 5 == 1:
            rs[:, : shape[1] // 2] = r[:, : shape[1] // 2] + 0.125  # ties
        if len(pairs) % 7 == 1:
            r[:, 0] = rs[:, 0] = np.nan  # absent
        if len(pairs) % 11 == 1:
            rs = r.copy()  # no gain anywhere
        pairs.append((r, rs))
    together = paired_gains(pairs, n_resamples=300)
    for pair, gain in zip(pairs, together, strict=True):
        np.testing.assert_equal(tuple(gain), tuple(paired_gain(*pair, n_resamples=300)))
    backwards = paired_gains(pairs[::-1], n_resamples=300)[::-1]
    np.testing.assert_equal(together, backwards)
    assert paired_gains([]) == []


def test_the_interval_of_a_gain_is_that_of_t() -> None:
    """Of normal gains the exact interval is Student's, which the stretched bootstrap nears."""
    rng = np.random.default_rng(4)
    ratios = []
    for n in (5, 8, 30):
        for _ in range(30):
            gains = rng.normal(0.0, 1.0, n)
            low, high = crossed_interval(gains, n_resamples=2000)
            quantile = {5: 2.776445, 8: 2.364624, 30: 2.045230}[n]  # of t, tables
            ratios.append((high - low) / (2 * quantile * gains.std(ddof=1) / np.sqrt(n)))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)
    assert np.std(ratios) < 0.08


@settings(deadline=None)
@given(
    rows=st.integers(1, 40).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(-1e3, 1e3), min_size=n, max_size=n), min_size=1, max_size=3
        )
    ),
    q=st.sampled_from([0.0, 0.025, 0.3, 0.5, 0.975, 1.0]),
)
def test_quantiles_are_those_of_numpy(rows: list[list[float]], q: float) -> None:
    values = np.array(rows)
    expected = np.quantile(values, q, axis=1)
    np.testing.assert_allclose(_quantile(values, q), expected, rtol=1e-12, atol=1e-9)


def test_seeds_that_agree_change_nothing_and_one_seed_is_no_seed() -> None:
    r, rs = np.random.default_rng(5).uniform(0.2, 0.9, (2, 25))
    alone = paired_gain(r, rs, n_resamples=4000)
    assert alone == paired_gain(r[None], rs[None], n_resamples=4000)
    thrice = paired_gain([r] * 3, [rs] * 3, n_resamples=4000)
    assert thrice.mean == pytest.approx(alone.mean)
    assert (thrice.n, thrice.p_value) == (25, alone.p_value)
    length = alone.interval.high - alone.interval.low
    assert thrice.interval.high - thrice.interval.low == pytest.approx(length, rel=0.06)


def null_arms(rng: np.random.Generator, n_seeds: int, n: int, training: float) -> list[Any]:
    """R twice: luck of training is the same for every patient of a seed, noise is each one's."""
    patients = rng.uniform(0.3, 0.9, n)
    return [
        patients + rng.normal(0, training, (n_seeds, 1)) + rng.normal(0, 0.05, (n_seeds, n))
        for _ in range(2)
    ]


class Null(NamedTuple):
    """Shares of comparisons of R with R."""

    covered: float  # the interval holds 0
    rejected: float  # p < .05
    patients_alone: float  # Wilcoxon's p < .05


def nulls(n_seeds: int, n: int, training: float, repeats: int = 600) -> Null:
    rng = np.random.default_rng([n_seeds, n])
    found = []
    for _ in range(repeats):
        r, rs = null_arms(rng, n_seeds, n, training)
        gain = paired_gain(r, rs, n_resamples=400)
        holds = gain.interval.low <= 0 <= gain.interval.high
        found.append((holds, gain.p_value < 0.05, wilcoxon((rs - r).mean(axis=0)) < 0.05))
    return Null(*np.mean(found, axis=0))


@pytest.mark.parametrize("n", [8, 25])
def test_r_against_r_of_the_same_luck_is_rarely_significant(n: int) -> None:
    null = nulls(1, n, training=0.0)
    # 600 draws of 5 % have a standard deviation of 0.9 %.
    assert 0.92 <= null.covered <= 0.98
    assert 0.02 <= null.rejected <= 0.08


@pytest.mark.parametrize(("n_seeds", "training"), [(2, 0.05), (3, 0.05), (5, 0.05), (3, 0.01)])
def test_luck_of_training_is_no_gain_though_patients_alone_say_so(
    n_seeds: int, training: float
) -> None:
    null = nulls(n_seeds, 25, training)
    assert null.covered >= 0.93
    assert null.rejected <= 0.07
    assert null.patients_alone > (0.5 if training > 0.01 else 0.1)


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_a_table_of_twenty_nulls_rarely_has_any_mark(n_seeds: int) -> None:
    """Holm over the cells: at most 5 % of tables have a false mark."""
    rng = np.random.default_rng(n_seeds)
    marked = [
        bool(
            (
                holm(
                    [
                        paired_gain(*null_arms(rng, n_seeds, 40, 0.02), n_resamples=2000).p_value
                        for _ in range(20)
                    ]
                )
                < 0.05
            ).any()
        )
        for _ in range(100)
    ]
    assert np.mean(marked) <= 0.10  # 100 draws of 5 % have a standard deviation of 2.2 %


def test_a_gain_beyond_luck_of_training_is_found() -> None:
    rng = np.random.default_rng(0)
    r, rs = null_arms(rng, 5, 40, 0.01)
    gain = paired_gain(r, rs + 0.06)
    assert gain.p_value < 0.005
    assert gain.interval.low > 0


def test_the_crossed_p_is_the_interval_inverted() -> None:
    rng = np.random.default_rng(2)
    for n_seeds in (1, 3):
        for shift in np.linspace(0.0, 0.06, 9):
            values = shift + rng.normal(0, 0.01, (n_seeds, 1)) + rng.normal(0, 0.05, (n_seeds, 12))
            low, high = crossed_interval(values)
            p = crossed_p(values)
            if abs(p - 0.05) > 0.015:  # draws are finite, and not symmetric
                assert (p < 0.05) == (low > 0 or high < 0)
    assert np.isnan(crossed_p([0.3]))
    assert crossed_p(np.zeros((2, 5))) == 1.0
    with pytest.raises(ValueError, match="not finite"):
        crossed_p([0.1, np.nan])


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_wilcoxon_is_the_count_over_all_signs(n: int) -> None:
    gains = np.random.default_rng(n).normal(0.3, 1.0, n)
    assert wilcoxon(gains) == pytest.approx(counted_p(gains), abs=1e-12)
    assert wilcoxon(np.abs(gains)) == pytest.approx(2.0 ** (1 - n))


def test_wilcoxon_ties_zeros_and_rounding() -> None:
    gains = np.array([0.4 - 0.3, 0.6 - 0.5, -0.1, 0.3, 0.2, 0.4])  # the first three tie
    assert gains[0] != gains[1]
    assert wilcoxon(gains) == pytest.approx(counted_p(np.round(gains, 9)), abs=1e-12)
    assert wilcoxon([*gains, 0.0, 0.3 - (0.1 + 0.2), np.nan]) == wilcoxon(gains)
    assert wilcoxon([0.0, 0.0]) == 1.0
    assert np.isnan(wilcoxon([np.nan]))
    assert wilcoxon(np.linspace(0.1, 1, 60)) < 1e-9
    with pytest.raises(ValueError, match="one per patient"):
        wilcoxon(np.zeros((2, 2)))


def counted_p(gains: NDArray[np.float64]) -> float:
    """Two-sided p by all equally likely signs of the ranks, average ranks for ties."""
    size = np.abs(gains)
    ranks = np.array([np.mean(np.flatnonzero(np.sort(size) == x)) + 1 for x in size])
    half = ranks.sum() / 2
    signs = np.array(list(itertools.product((0, 1), repeat=len(gains))))
    far = np.abs(signs @ ranks - half) >= abs(ranks[gains > 0].sum() - half) - 1e-9
    return float(far.mean())


def test_holm_by_hand() -> None:
    # 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04 raised to the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)
    # nan is no test: three count, not four.
    shown = holm([[0.01, np.nan], [0.02, 0.04]])
    assert shown.ravel() == pytest.approx([0.03, np.nan, 0.04, 0.04], nan_ok=True)
    with pytest.raises(ValueError, match=r"p-value is 1\.2"):
        holm([0.1, 1.2])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_closed_testing_with_bonferroni_rejects(
    p: list[float], level: float
) -> None:
    """A hypothesis falls if every set holding it does: Holm's procedure by its other definition."""
    adjusted = holm(p)
    sets = [s for k in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), k)]
    for i in range(len(p)):
        closed = max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s)
        assert adjusted[i] == pytest.approx(closed, abs=1e-12)
        assert (adjusted[i] <= level) == (closed <= level) or abs(closed - level) < 1e-12


def test_holm_keeps_the_family_at_its_level() -> None:
    p = np.random.default_rng(6).uniform(size=(2000, 10))
    assert np.mean([holm(row).min() < 0.05 for row in p]) == pytest.approx(0.05, abs=0.015)


def test_ranks_are_sure_where_pairing_makes_them_so() -> None:
    patients = np.random.default_rng(7).normal(0, 1.0, 30)
    scores = np.stack([patients + 0.1, patients + 0.2, patients])
    ranks = rank_bootstrap(scores, n_resamples=500)
    # Patients spread far more than the candidates differ, and alike for all three.
    assert list(ranks.rank) == list(ranks.low) == list(ranks.high) == [2, 1, 3]
    assert list(ranks.first) == [0, 1, 0]


def test_ranks_of_equals_are_open_and_ties_are_shared() -> None:
    scores = np.random.default_rng(8).normal(size=(2, 4000))
    scores -= scores.mean(axis=1, keepdims=True)
    open_ = rank_bootstrap(scores, n_resamples=2000)
    assert list(open_.rank) == [1.5, 1.5]
    assert open_.first == pytest.approx([0.5, 0.5], abs=0.04)
    assert (list(open_.low), list(open_.high)) == ([1, 1], [2, 2])
    tied = rank_bootstrap(np.ones((3, 2)), n_resamples=50)
    assert list(tied.rank) == [2, 2, 2]
    assert tied.first == pytest.approx([1 / 3] * 3)


def test_the_chance_to_be_first_is_that_of_the_normal_difference() -> None:
    """P(mean difference > 0) of a bootstrap is Φ(mean / standard error)."""
    rng = np.random.default_rng(9)
    gap = rng.normal(0.0, 1.0, 400)
    gap += 0.05 - gap.mean()  # one standard error
    ranks = rank_bootstrap(np.stack([gap, np.zeros(400)]), n_resamples=4000)
    assert ranks.first[0] == pytest.approx(0.8413, abs=0.02)


def test_seeds_make_ranks_less_sure() -> None:
    rng = np.random.default_rng(10)
    patients = rng.normal(0, 0.01, (2, 1, 40))
    seeds = np.array([[-0.5, 0.6, 0.2], [0.0, 0.0, 0.0]])[:, :, None]
    scores = patients + seeds
    sure = rank_bootstrap(scores.mean(axis=1), n_resamples=500)
    unsure = rank_bootstrap(scores, n_resamples=500)
    assert sure.first[0] == 1
    assert 0.6 < unsure.first[0] < 0.95
    assert list(unsure.rank) == list(sure.rank) == [1, 2]


def test_ranks_of_replicates_are_centred_and_lower_is_better() -> None:
    rng = np.random.default_rng(11)
    noise = rng.normal(0, 1.0, 2000)
    # Biased by 30, which the first candidate's replicates are not.
    replicates = np.stack([10 + noise, 12 + 30 + noise, 11 + rng.normal(0, 1.0, 2000)])
    ranks = rank_replicates([10.0, 9.0, 11.0], replicates)
    assert list(ranks.rank) == [2, 1, 3]
    assert ranks.first.sum() == pytest.approx(1.0)
    assert ranks.first[0] == 0  # 1 behind the second in every resample
    # Ahead of the third where a normal difference of mean 2, variance 2 is positive.
    assert ranks.first[1] == pytest.approx(0.921, abs=0.02)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.zeros(3), "expected"),
        (np.zeros((2, 1)), "at least two patients"),
        (np.array([[0.1, np.nan], [0.1, 0.2]]), "1 values that are not finite"),
    ],
)
def test_ranks_refuse_bad_scores(scores: NDArray[np.float64], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rank_bootstrap(scores)


def test_replicates_and_crossed_values_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and their replicates \(3, 4\)"):
        rank_replicates([1.0, 2.0], np.zeros((3, 4)))
    with pytest.raises(ValueError, match="not finite"):
        rank_replicates([1.0, np.nan], np.zeros((2, 4)))
    with pytest.raises(ValueError, match="1 that are not finite"):
        crossed_interval([0.1, np.nan])
    with pytest.raises(ValueError, match=r"\(1, 2, 2\)"):
        crossed_interval(np.zeros((1, 2, 2)))

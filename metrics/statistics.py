"""Gains of one arm over another, tests of them, intervals of means, and ranks.

Cases are patients: the independent units every interval resamples. Where an arm was trained with
several seeds, the same networks saw every patient, so seeds are crossed with patients: another
seed is another draw of the training, not another patient.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_RESAMPLES = 9999

_NOISE = 1e-12
"""Differences of two scores below this are rounding: no gain, and no order of gains."""


_AT_ONCE = 64
"""Arms that are tested together; more would only take memory."""

Kind = TypeVar("Kind", bound=Hashable)


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval; both nan where there is none."""

    low: float
    high: float


NO_INTERVAL = Interval(float("nan"), float("nan"))


class PairedGain(NamedTuple):
    """Mean of ``rs - r`` over n patients, in the units of the score.

    ``interval`` is for new patients and, with several seeds, new training seeds. ``p_value`` is the
    two-sided Wilcoxon signed-rank p of the patients' gains (their means over the seeds). That test
    takes the networks as they are, and finds what luck of training does to all patients alike: with
    several seeds the p is therefore no smaller than that of `crossed_p`, which knows of training.
    """

    mean: float
    interval: Interval
    n: int
    p_value: float


class Ranks(NamedTuple):
    """Ranks of g candidates, 1 for the best; tied ones share the average of their ranks.

    ``rank`` (g,) of the scores as they are, ``low`` and ``high`` (g,) the ends of its bootstrap
    interval, ``first`` (g,) the share of resamples in which the candidate is the best (ties share
    it alike; the shares sum to 1).
    """

    rank: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    first: NDArray[np.float64]


def relative_gain(r: float, rs: float) -> float:
    """Gain of R+S over R in percent of R, as the paper prints it: ``100 (rs - r) / r``.

    Args:
        r: mean score of the arm trained on real volumes.
        rs: mean score of the arm trained on real and synthetic volumes.

    Returns:
        Percent; nan where r is 0 and no relative gain exists, or where a score is nan.
    """
    return 100.0 * (rs - r) / r if r != 0 else float("nan")


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., NDArray[np.float64]] = np.mean,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a statistic of independent cases (Efron 1979).

    The percentile method, unlike BCa, is defined for constant samples, where the interval has
    length zero.

    Args:
        values: ``(n,)`` one value per case; nan (an absent structure) is left out.
        statistic: maps an array to its statistic along ``axis`` (`numpy.mean`, `numpy.median`).
        n_resamples: resamples drawn.
        seed: the same seed gives the same interval.
        level: confidence level in (0, 1).

    Returns:
        The interval, in the units of the statistic; nan with fewer than two values.

    Raises:
        ValueError: values that are not one-dimensional.
    """
    from scipy.stats import bootstrap

    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise ValueError(
            f"The values have shape {sample.shape}; expected one value per case, (n,)."
        )
    sample = sample[~np.isnan(sample)]
    if sample.size < 2:
        return NO_INTERVAL
    result = bootstrap(
        (sample,),
        statistic,
        n_resamples=n_resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def paired_gain(
    r: ArrayLike,
    rs: ArrayLike,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> PairedGain:
    """Mean absolute gain of R+S over R, paired by patient, with its interval and Wilcoxon's p.

    Args:
        r: ``(n,)`` scores of the arm trained on real volumes, or ``(n_seeds, n)``.
        rs: scores of the same patients (and seeds), in the same order, of the other arm.
        n_resamples, seed: of the interval of 95 %, `crossed_interval`.

    Returns:
        The gain; its mean and p are nan where no patient has a score, its interval with fewer
        than two.

    Raises:
        ValueError: different shapes, or a patient that is nan in one arm or seed alone: a
            structure absent from the reference is absent for every arm and seed alike, so these
            would not be pairs.
    """
    return paired_gains([(r, rs)], n_resamples, seed)[0]


def paired_gains(
    pairs: Iterable[tuple[ArrayLike, ArrayLike]],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> list[PairedGain]:
    """`paired_gain` of each pair of arms ``(r, rs)``: the same numbers, sooner for thousands."""
    gains = [_crossed(_paired(r, rs)) for r, rs in pairs]
    by_patient = [values.mean(axis=0) for values in gains]
    p_values = _wilcoxon_each(by_patient)
    crossed = _crossed_each(gains, n_resamples, seed)
    found = []
    for values, means, p, (interval, with_luck) in zip(
        gains, by_patient, p_values, crossed, strict=True
    ):
        several = len(values) > 1 and means.size > 1
        found.append(
            PairedGain(
                float(means.mean()) if means.size else float("nan"),
                interval,
                means.size,
                max(p, with_luck) if several else p,
            )
        )
    return found


def _paired(r: ArrayLike, rs: ArrayLike) -> NDArray[np.float64]:
    """Gains ``(n_seeds, n)`` of the patients that have a score; ValueError of `paired_gain`."""
    first, second = np.asarray(r, dtype=np.float64), np.asarray(rs, dtype=np.float64)
    if first.shape != second.shape or first.ndim not in (1, 2):
        raise ValueError(
            f"The arms have shapes {first.shape} and {second.shape}; "
            "a paired gain needs the same cases in both, (n,) or (n_seeds, n)."
        )
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    gains = second - first
    if np.isfinite(gains).all():
        return gains
    absent = np.isnan(np.concatenate([first, second]))
    mismatched = np.flatnonzero(absent.any(axis=0) & ~absent.all(axis=0))
    if mismatched.size:
        raise ValueError(
            f"Case {mismatched[0]} has a score in one arm or seed only; "
            "score both arms against the same references."
        )
    return gains[:, ~absent.any(axis=0)]


def crossed_interval(
    values: ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of a mean over patients crossed with training seeds.

    Answers what the mean would be for other patients and for networks trained with other seeds.
    One network sees every patient, so that its luck moves them all: seeds are crossed with
    patients, as readers are with cases in studies of many readers (Dorfman et al. 1992). To treat
    the seeds of different patients as independent draws would make the variance of training vanish
    among many patients.

    The patients are bootstrapped: one less is drawn than there are, which makes the variance
    unbiased (McCarthy & Snowden 1985), and the deviations are stretched by the ratio of the
    quantiles of t and normal, without which the interval of few patients is too short (Hesterberg
    2015). Two to five seeds are too few to draw from, so the deviation that training adds is drawn
    from Student's t with one degree of freedom less than there are seeds, scaled by the standard
    error of the seeds' means. With one seed the interval is for new patients and these very
    networks.

    Args:
        values: ``(n,)`` one value per patient, or ``(n_seeds, n)``; no nan.
        n_resamples: resamples drawn.
        seed: the same seed gives the same interval.
        level: confidence level in (0, 1).

    Returns:
        The interval, in the units of the values; nan with fewer than two patients.

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    return _crossed_each([_crossed(values)], n_resamples, seed, level)[0].interval


def crossed_p(values: ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = 0) -> float:
    """Two-sided p that a mean over patients crossed with seeds is 0: `crossed_interval`, inverted.

    Args:
        values, n_resamples, seed: see `crossed_interval`.

    Returns:
        The share of deviations at least as far from 0 as the mean is, in (0, 1]; nan with fewer
        than two patients. Never below 1 / (n_resamples + 1).

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    return _crossed_each([_crossed(values)], n_resamples, seed)[0].p_value


def _crossed(values: ArrayLike) -> NDArray[np.float64]:
    """Values ``(n,)`` or ``(n_seeds, n)`` as ``(n_seeds, n)``, all finite."""
    sample = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if sample.ndim != 2 or not np.isfinite(sample).all():
        raise ValueError(
            f"The values have shape {np.shape(values)} and {_not_finite(sample)} that are not "
            "finite; expected finite values, (n,) or (n_seeds, n)."
        )
    return sample


class _Crossed(NamedTuple):
    """Interval of a mean over patients crossed with seeds, and the p of its inversion."""

    interval: Interval
    p_value: float


def _crossed_each(
    samples: Sequence[NDArray[np.float64]], n_resamples: int, seed: int, level: float = 0.95
) -> list[_Crossed]:
    """`crossed_interval` and `crossed_p` of samples ``(n_seeds, n)``, finite throughout."""
    upper = (1 + level) / 2
    found = [_Crossed(NO_INTERVAL, float("nan"))] * len(samples)
    for (n_seeds, n), places in _alike([sample.shape for sample in samples]):
        if n_seeds < 1 or n < 2:
            continue
        stack = np.stack([samples[place] for place in places])
        means = stack.mean(axis=(1, 2))
        deviations = _deviations(stack, n_resamples, seed, upper)
        far = np.count_nonzero(np.abs(deviations) >= np.abs(means)[:, None], axis=1)
        ends = np.stack([_quantile(deviations, q) for q in (1 - upper, upper)]) + means
        p_values = (1 + far) / (n_resamples + 1)
        for place, low, high, p in zip(places, *ends.tolist(), p_values.tolist(), strict=True):
            found[place] = _Crossed(Interval(low, high), p)
    return found


def _quantile(rows: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """`numpy.quantile` of each of the rows ``(m, n)``, which it reorders, in a third of its time.

    numpy partitions about one place with vector instructions, and about several without.
    """
    n = rows.shape[1]
    place = q * (n - 1)
    above = min(int(place) + 1, n - 1)
    rows.partition(above, axis=1)
    low, high = rows[:, : max(above, 1)].max(axis=1), rows[:, above]
    quantiles: NDArray[np.float64] = low + (high - low) * (place - (above - 1))
    return quantiles


def _alike(kinds: Iterable[Kind]) -> Iterator[tuple[Kind, list[int]]]:
    """Each kind, and the places at which it stands, at most `_AT_ONCE` of them together."""
    places: dict[Kind, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    for kind, own in places.items():
        for start in range(0, len(own), _AT_ONCE):
            yield kind, own[start : start + _AT_ONCE]


def _deviations(
    samples: NDArray[np.float64], n_resamples: int, seed: int, upper: float
) -> NDArray[np.float64]:
    """How far the means of ``(m, n_seeds, n)`` may lie from the true ones, ``(m, n_resamples)``.

    ``upper`` is the quantile at which the bootstrap over patients is stretched to Student's t.
    """
    from scipy.special import ndtri, stdtrit

    m, n_seeds, n = samples.shape
    weights = _weights(n, n_resamples, 1, (seed, 0))
    deviations = np.empty((m, n_resamples))
    # One by one, so that no number depends on how many others are asked for with it.
    for drawn, by_patient in zip(deviations, samples.mean(axis=1), strict=True):
        np.matmul(weights, by_patient, out=drawn)
    deviations -= samples.mean(axis=(1, 2))[:, None]
    deviations *= stdtrit(n - 1, upper) / ndtri(upper)
    if n_seeds > 1:
        errors = samples.mean(axis=2).std(axis=1, ddof=1) / np.sqrt(n_seeds)
        deviations += errors[:, None] * _luck(n_seeds, n_resamples, (seed, 1))
    deviations[np.abs(deviations) < _NOISE] = 0.0
    return deviations


@lru_cache(maxsize=8)
def _luck(n_seeds: int, n_resamples: int, entropy: tuple[int, int]) -> NDArray[np.float64]:
    """Student's t with one degree of freedom less than there are seeds, ``(n_resamples,)``.

    Kept, since a table asks for the same draws in each of its cells.
    """
    luck = np.random.default_rng(entropy).standard_t(n_seeds - 1, n_resamples)
    luck.flags.writeable = False
    return np.asarray(luck, dtype=np.float64)


def wilcoxon(gains: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that paired gains are symmetric about 0.

    Gains of 0 (to rounding) are left out before ranking, Wilcoxon's own rule; tied gains share
    their average rank. p is exact up to 50 gains (13 where some are tied), else that of the normal
    approximation with continuity correction. Few gains are no special case: of n, the exact p is
    2^(1 - n) at least, so fewer than 6 never reach 0.05.

    Args:
        gains: ``(n,)`` one gain per patient; nan is left out.

    Returns:
        p in (0, 1]; 1 where every gain is 0, nan where there is none.

    Raises:
        ValueError: gains that are not one-dimensional.
    """
    sample = np.asarray(gains, dtype=np.float64)
    if sample.ndim != 1:
        raise ValueError(f"The gains have shape {sample.shape}; expected one per patient, (n,).")
    return _wilcoxon_each([sample[~np.isnan(sample)]])[0]


def _wilcoxon_each(samples: Sequence[NDArray[np.float64]]) -> list[float]:
    """`wilcoxon` of samples ``(n,)`` without nan."""
    from scipy.stats import wilcoxon as signed_rank

    # Equal gains differ by rounding (0.4 - 0.3 is not 0.6 - 0.5) and would not tie.
    rounded = [np.round(sample / _NOISE) * _NOISE for sample in samples]
    moved = [sample[sample != 0] for sample in rounded]
    found = [1.0 if sample.size else float("nan") for sample in samples]
    # Apart, since one sample with ties denies all that are tested with it the exact p.
    kinds = [(gains.size, np.unique(np.abs(gains)).size < gains.size) for gains in moved]
    for (n, _), places in _alike(kinds):
        if n:
            stack = np.stack([moved[place] for place in places])
            tested = signed_rank(stack, correction=True, method="auto", axis=1)
            for place, p in zip(places, tested.pvalue.tolist(), strict=True):
                found[place] = min(1.0, p)
    return found


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment of a family of p-values (Holm 1979).

    An adjusted p below alpha rejects at family-wise level alpha, however the tests depend.

    Args:
        p_values: any shape, in [0, 1]; nan (no test) stays nan and does not count.

    Returns:
        Adjusted p-values, same shape.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = p[~np.isnan(p)]
    wrong = tested[(tested < 0) | (tested > 1)]
    if wrong.size:
        raise ValueError(f"A p-value is {wrong[0]}; expected values in [0, 1], or nan.")
    order = np.argsort(tested, kind="stable")
    stepped = np.maximum.accumulate(tested[order] * np.arange(tested.size, 0, -1))
    adjusted = np.empty_like(tested)
    adjusted[order] = np.minimum(stepped, 1.0)
    result = p.copy()
    result[~np.isnan(p)] = adjusted
    return result


def rank_bootstrap(
    scores: ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = 0, level: float = 0.95
) -> Ranks:
    """Ranks by mean score, higher is better, with a bootstrap over patients (and seeds).

    A resample draws the same patients for every candidate, so that what makes a patient easy for
    all of them moves no rank. With several seeds each candidate's own luck of training is added, as
    in `crossed_interval`; with one it is in no rank.

    Args:
        scores: ``(g, n)`` scores of g candidates for the same n patients, or ``(g, n_seeds, n)``.
        n_resamples, seed, level: as in `crossed_interval`.

    Returns:
        Ranks of g candidates.

    Raises:
        ValueError: another shape, fewer than two patients, or a value that is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim == 2:
        values = values[:, None, :]
    if values.ndim != 3 or values.shape[2] < 2 or 0 in values.shape:
        raise ValueError(
            f"The scores have shape {np.shape(scores)}; expected (candidates, patients) or "
            "(candidates, seeds, patients) with at least two patients."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"The scores hold {_not_finite(values)} values that are not finite; rank by the "
            "patients that every candidate has a score for."
        )
    means = values.mean(axis=1) @ _weights(values.shape[2], n_resamples, 0, (seed, 0)).T
    n_seeds = values.shape[1]
    if n_seeds > 1:
        errors = values.mean(axis=2).std(axis=1, ddof=1) / np.sqrt(n_seeds)
        rng = np.random.default_rng((seed, 1))
        means = means + errors[:, None] * rng.standard_t(n_seeds - 1, (len(values), n_resamples))
    return _ranks(-values.mean(axis=(1, 2)), -means, level)


def rank_replicates(values: ArrayLike, replicates: ArrayLike, level: float = 0.95) -> Ranks:
    """Ranks by a distance, lower is better, from bootstrap replicates of it.

    The replicates are centred on the values: a resample repeats volumes, which moves a distance
    between sets up, and by more for one generator than for another.

    Args:
        values: ``(g,)`` the distances.
        replicates: ``(g, n_resamples)``; resample r of every candidate drew the same real volumes.
        level: confidence level in (0, 1).

    Returns:
        Ranks of g candidates.

    Raises:
        ValueError: other shapes, or a value that is not finite.
    """
    value, drawn = np.asarray(values, dtype=np.float64), np.asarray(replicates, dtype=np.float64)
    if value.ndim != 1 or drawn.ndim != 2 or len(value) != len(drawn) or 0 in drawn.shape:
        raise ValueError(
            f"The distances have shape {value.shape} and their replicates {drawn.shape}; "
            "expected (candidates,) and (candidates, resamples)."
        )
    if not (np.isfinite(value).all() and np.isfinite(drawn).all()):
        raise ValueError("A distance or a replicate is not finite; rank those that have all.")
    return _ranks(value, drawn - drawn.mean(axis=1, keepdims=True) + value[:, None], level)


def _ranks(value: NDArray[np.float64], drawn: NDArray[np.float64], level: float) -> Ranks:
    """Ranks of values ``(g,)``, lower first, and of their replicates ``(g, n_resamples)``."""
    from scipy.stats import rankdata

    # Rounded, so that means equal but for the order of a sum tie.
    ranks = rankdata(np.round(drawn, 12), axis=0)
    best = ranks == ranks.min(axis=0)
    tails = [(1 - level) / 2, (1 + level) / 2]
    # Ends that are ranks some resample gave, not points between two of them.
    low, high = np.quantile(ranks, tails, axis=1, method="inverted_cdf")
    first = (best / best.sum(axis=0)).mean(axis=1)
    return Ranks(rankdata(np.round(value, 12)), low, high, first)


@lru_cache(maxsize=8)
def _weights(n: int, n_resamples: int, less: int, entropy: tuple[int, int]) -> NDArray[np.float64]:
    """How often each of n units is drawn in each resample, ``(n_resamples, n)``, rows sum to 1.

    Kept, since a table asks for the same ones in each of its cells.
    """
    drawn = max(n - less, 1)
    rng = np.random.default_rng(entropy)
    weights = rng.multinomial(drawn, np.full(n, 1 / n), size=n_resamples) / drawn
    weights.flags.writeable = False
    return np.asarray(weights, dtype=np.float64)


def _not_finite(values: NDArray[np.float64]) -> int:
    return int(np.count_nonzero(~np.isfinite(values)))

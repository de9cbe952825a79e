"""Which generator is first, and how surely; and gains by dose. Both are means over segmenters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leaderboard.arms import Key, Pairs
from leaderboard.inputs import Inputs, generators_in_order, in_order, places
from leaderboard.model import DOSE_COLUMNS, RANK_COLUMNS, REAL, RunInfo
from leaderboard.names import controls_of
from metrics.statistics import Ranks, paired_gain, rank_bootstrap, rank_replicates

Name = TypeVar("Name", int, str)


class Gains(NamedTuple):
    """Gains in Dice of an arm, mean over the segmenters."""

    values: NDArray[np.float64]  # (n_seeds, n_cases)
    seeds: tuple[int, ...]
    cases: tuple[str, ...]


def ranks_frame(
    inputs: Inputs,
    arms: Collection[Key],
    pairs: Mapping[Key, Pairs],
    generators: pd.DataFrame,
    info: RunInfo,
) -> pd.DataFrame:
    """Ranks by average FID and by gain in Dice on each task: `RANK_COLUMNS`.

    Generators compete with generators; controls are ranked where fewer than two of these are
    there. One that left a hole is not ranked.
    """
    rows = _by_fid(inputs, generators, info)
    for task in in_order(info.tasks, inputs.segment_cells["task"]):
        rows += _by_gain(arms, pairs, task, info)
    frame = pd.DataFrame(rows, columns=list(RANK_COLUMNS))
    return frame.astype({"n_cases": "Int64", "n_seeds": "Int64"})


def doses_frame(
    inputs: Inputs, arms: Collection[Key], pairs: Mapping[Key, Pairs], info: RunInfo
) -> pd.DataFrame:
    """Gain of every arm over R, mean over the segmenters: `DOSE_COLUMNS`.

    Empty where a run has no other dose than the paper's.
    """
    doses = dict.fromkeys(key._replace(segmenter="") for key in arms if key.generator)
    rows = []
    if any((key.arm, key.real, key.ratio) != ("R+S", "all", 1.0) for key in doses):
        rows = [row for key in doses for row in _dose(arms, pairs, key)]
    frame = pd.DataFrame(rows, columns=list(DOSE_COLUMNS))
    order = {
        "generator": generators_in_order(info, frame["generator"]),
        "task": in_order(info.tasks, inputs.segment_cells["task"]),
    }
    keys = {column: places(frame[column], names) for column, names in order.items()}
    count = pd.to_numeric(frame["real"], errors="coerce").fillna(float("inf"))
    ranks = frame.assign(**keys, _count=count)
    by = ["generator", "task", "arm", "_count", "ratio"]
    return frame.loc[ranks.sort_values(by, kind="stable").index].reset_index(drop=True)


def _competing(names: Sequence[str], info: RunInfo) -> list[str]:
    models = [name for name in names if name not in controls_of(info) | {REAL}]
    return models if len(models) > 1 else [name for name in names if name != REAL]


def _by_fid(inputs: Inputs, generators: pd.DataFrame, info: RunInfo) -> list[dict[str, object]]:
    """Of several seeds, resample r is the mean of theirs: they drew the same real volumes."""
    scored = generators[generators["fid_average"].notna()]
    seeds = dict(zip(scored["generator"], scored["n_seeds"], strict=True))
    drawn = {}
    resamples = dict(iter(inputs.resamples.groupby("generator")))
    for name in scored["generator"]:
        own = resamples.get(name, inputs.resamples.head(0))
        by_seed = own.pivot(index="case", columns="seed", values="value").sort_index()
        if by_seed.shape[1] == seeds[name] and len(by_seed) and np.isfinite(by_seed).all(axis=None):
            drawn[name] = by_seed.mean(axis=1)
    names = _competing(list(drawn), info)
    joined = pd.DataFrame({name: drawn[name] for name in names}).dropna()
    if len(names) < 2 or not len(joined):
        return []
    values = scored.set_index("generator")["fid_average"].astype("float64").reindex(names)
    ranks = rank_replicates(values.to_numpy(), joined.to_numpy().T)
    counts = scored.set_index("generator")["n_synthetic"]
    sizes = {name: (counts[name], seeds[name]) for name in names}
    return _rows("fid", "", list(values), names, ranks, sizes)


def _by_gain(
    arms: Collection[Key], pairs: Mapping[Key, Pairs], task: str, info: RunInfo
) -> list[dict[str, object]]:
    keys = [k for k in arms if k.task == task and k[3:] == ("R+S", "all", 1.0)]
    names = generators_in_order(info, (k.generator for k in keys))
    segmenters, gains = sorted({k.segmenter for k in keys}), {}
    for name in names:
        key = Key(name, "", task, "R+S", "all", 1.0)
        found = _mean_gain(pairs, key, segmenters)
        if found is not None and found.values.size:
            gains[name] = found
    names = _competing([name for name in names if name in gains], info)
    if len(names) < 2:
        return []
    shared_seeds = _shared(gains[name].seeds for name in names)
    shared_cases = _shared(gains[name].cases for name in names)
    if len(shared_cases) < 2 or not shared_seeds:
        return []
    scores = np.stack([_at(*gains[name], shared_seeds, shared_cases) for name in names])
    sizes = {name: (len(shared_cases), len(shared_seeds)) for name in names}
    values = scores.mean(axis=(1, 2)).tolist()
    return _rows("dice_gain", task, values, names, rank_bootstrap(scores), sizes)


def _mean_gain(pairs: Mapping[Key, Pairs], key: Key, segmenters: Sequence[str]) -> Gains | None:
    """Gains of an arm; None where a segmenter left a hole."""
    found: list[Pairs] = []
    for segmenter in segmenters:
        own = pairs.get(key._replace(segmenter=segmenter))
        if own is None:
            return None
        found.append(own)
    seeds, cases = _shared(own.seeds for own in found), _shared(own.cases for own in found)
    total = np.zeros((len(seeds), len(cases)))
    for own in found:
        total += _at(own.rs - own.r, own.seeds, own.cases, seeds, cases)
    return Gains(total / len(found), seeds, cases)


def _shared(groups: Iterable[tuple[Name, ...]]) -> tuple[Name, ...]:
    """What stands in every group, in order."""
    different = dict.fromkeys(groups)  # nearly always one
    return tuple(sorted(set.intersection(*map(set, different))))


def _at(
    values: NDArray[np.float64],
    own_seeds: tuple[int, ...],
    own_cases: tuple[str, ...],
    seeds: tuple[int, ...],
    cases: tuple[str, ...],
) -> NDArray[np.float64]:
    """Values at some of their seeds and cases, (n_seeds, n_cases)."""
    if (own_seeds, own_cases) == (seeds, cases):
        return values
    at = {case: n for n, case in enumerate(own_cases)}
    rows, columns = [own_seeds.index(seed) for seed in seeds], [at[case] for case in cases]
    chosen: NDArray[np.float64] = values[np.ix_(rows, columns)]
    return chosen


def _dose(arms: Collection[Key], pairs: Mapping[Key, Pairs], key: Key) -> list[dict[str, object]]:
    segmenters = sorted({k.segmenter for k in arms if k._replace(segmenter="") == key})
    gains = _mean_gain(pairs, key, segmenters)
    if gains is None or not gains.values.size:
        return []
    gain = paired_gain(np.zeros(gains.values.shape), gains.values)
    return [
        {
            "generator": key.generator,
            "task": key.task,
            "arm": key.arm,
            "real": key.real,
            "ratio": key.ratio,
            "gain": gain.mean,
            "gain_low": gain.interval.low,
            "gain_high": gain.interval.high,
            "n_cases": gain.n,
            "n_segmenters": len(segmenters),
        }
    ]


def _rows(
    by: str,
    task: str,
    values: Sequence[float],
    names: Sequence[str],
    ranks: Ranks,
    sizes: Mapping[str, tuple[int, int]],
) -> list[dict[str, object]]:
    return [
        {
            "by": by,
            "task": task,
            "generator": name,
            "value": values[i],
            "rank": ranks.rank[i],
            "rank_low": ranks.low[i],
            "rank_high": ranks.high[i],
            "p_first": ranks.first[i],
            "n_cases": sizes[name][0],
            "n_seeds": sizes[name][1],
        }
        for i, name in enumerate(names)
    ]

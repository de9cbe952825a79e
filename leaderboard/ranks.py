"""Which generator is first, and how surely; and gains by dose. Both are means over segmenters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leaderboard.arms import Key, Pairs
from leaderboard.inputs import Inputs, generators_in_order, in_order
from leaderboard.model import DOSE_COLUMNS, RANK_COLUMNS, REAL, RunInfo
from leaderboard.names import controls_of
from metrics.statistics import Ranks, paired_gain, rank_bootstrap, rank_replicates


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
    keys = {column: frame[column].map(names.index) for column, names in order.items()}
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
    for name in scored["generator"]:
        own = inputs.resamples[inputs.resamples["generator"] == name]
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
        if found is not None and found.size:
            gains[name] = found
    names = _competing([name for name in names if name in gains], info)
    if len(names) < 2:
        return []
    cases = [set(gains[name].columns) for name in names]
    seeds = [set(gains[name].index) for name in names]
    shared_cases, shared_seeds = sorted(set.intersection(*cases)), sorted(set.intersection(*seeds))
    if len(shared_cases) < 2 or not shared_seeds:
        return []
    scores = np.stack([gains[n].loc[shared_seeds, shared_cases].to_numpy() for n in names])
    sizes = {name: (len(shared_cases), len(shared_seeds)) for name in names}
    values = scores.mean(axis=(1, 2)).tolist()
    return _rows("dice_gain", task, values, names, rank_bootstrap(scores), sizes)


def _mean_gain(
    pairs: Mapping[Key, Pairs], key: Key, segmenters: Sequence[str]
) -> pd.DataFrame | None:
    """Gains of an arm, seeds down and cases across, mean over the segmenters; None with a hole."""
    found: list[Pairs] = []
    for segmenter in segmenters:
        own = pairs.get(key._replace(segmenter=segmenter))
        if own is None:
            return None
        found.append(own)
    seeds = sorted(set.intersection(*(set(own.seeds) for own in found)))
    cases = sorted(set.intersection(*(set(own.cases) for own in found)))
    total = sum((_gains(own, seeds, cases) for own in found), np.zeros((len(seeds), len(cases))))
    return pd.DataFrame(total / len(found), index=seeds, columns=cases)


def _gains(pairs: Pairs, seeds: Sequence[int], cases: Sequence[str]) -> NDArray[np.float64]:
    """Gains at some of their seeds and cases, (n_seeds, n_cases)."""
    rows = [pairs.seeds.index(seed) for seed in seeds]
    at = {case: n for n, case in enumerate(pairs.cases)}
    gains: NDArray[np.float64] = (pairs.rs - pairs.r)[np.ix_(rows, [at[case] for case in cases])]
    return gains


def _dose(arms: Collection[Key], pairs: Mapping[Key, Pairs], key: Key) -> list[dict[str, object]]:
    segmenters = sorted({k.segmenter for k in arms if k._replace(segmenter="") == key})
    gains = _mean_gain(pairs, key, segmenters)
    if gains is None or not gains.size:
        return []
    gain = paired_gain(np.zeros(gains.shape), gains.to_numpy())
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

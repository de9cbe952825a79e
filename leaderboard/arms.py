"""What a segmenter was trained on and the Dice it reached, by case and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leaderboard.inputs import ARM_KEY, CellEnd, Inputs, ends_by, outcome

Floats = NDArray[np.float64]


class Key(NamedTuple):
    """What names an arm; the fields of `ARM_KEY`."""

    generator: str
    segmenter: str
    task: str
    arm: str
    real: str
    ratio: float

    @property
    def baseline(self) -> Key:
        """The R of as many real cases; for S, which has none, that of all of them."""
        real = "all" if self.arm == "S" else self.real
        return self._replace(generator="", arm="R", real=real, ratio=0.0)


class Means(NamedTuple):
    """What a table of Dice, seeds down and cases across, comes to."""

    by_seed: tuple[float, ...]  # mean over the cases that have a value; nan where a seed has none
    mean: float  # over seeds; nan when one of them left a hole
    spread: float  # standard deviation over seeds; nan with one seed
    whole: bool  # a value of every case and seed


@dataclass(frozen=True)
class Arm:
    """Dice of one arm and how its cells ended."""

    dice: Floats  # (n_seeds, n_cases), nan where a structure is absent or a seed left a hole
    seeds: tuple[int, ...]  # planned
    cases: tuple[str, ...]
    cells: tuple[CellEnd, ...]
    means: Means

    @cached_property
    def measured_seeds(self) -> frozenset[int]:
        """Those that left no hole."""
        return frozenset(
            seed
            for seed, mean in zip(self.seeds, self.means.by_seed, strict=True)
            if not math.isnan(mean)
        )

    @cached_property
    def outcome(self) -> tuple[str, str]:
        """Status of its cells taken together, and why."""
        return outcome(self.cells)

    @cached_property
    def done(self) -> bool:
        """Whether every planned seed ended well."""
        return all(cell.status == "done" for cell in self.cells)


class Pairs(NamedTuple):
    """Dice of two arms, ``(n_seeds, n)``, of the n cases that have one in both and in all seeds."""

    r: Floats
    rs: Floats
    cases: tuple[str, ...]
    seeds: tuple[int, ...]  # those that both arms have
    unshared: tuple[int, ...]  # seeds of one arm only
    absent: int  # cases without a value in any arm and seed
    unpaired: int  # cases with a value in some of them only


def read_arms(inputs: Inputs) -> dict[Key, Arm]:
    """Every arm of the plan, in the order of its cells."""
    measured: dict[tuple[object, ...], list[tuple[int, str, float]]] = {}
    columns = [*ARM_KEY, "seed", "case", "value"]
    for *key, seed, case, value in zip(*(inputs.dice[c].tolist() for c in columns), strict=True):
        measured.setdefault(tuple(key), []).append((seed, case, value))
    ends = ends_by(inputs.segment_cells, ARM_KEY)
    tables = [_table(measured.get(key, []), cells) for key, cells in ends.items()]
    every = _means([dice for dice, _, _ in tables])
    return {
        Key(*key): Arm(*table, tuple(cells), mean)
        for (key, cells), table, mean in zip(ends.items(), tables, every, strict=True)
    }


def _table(
    measured: Sequence[tuple[int, str, float]], cells: Sequence[CellEnd]
) -> tuple[Floats, tuple[int, ...], tuple[str, ...]]:
    """Dice of an arm, its seeds down and its cases across, and these."""
    seeds = sorted({cell.seed for cell in cells})
    cases = sorted({case for _, case, _ in measured})
    row = {seed: n for n, seed in enumerate(seeds)}
    column = {case: n for n, case in enumerate(cases)}
    dice = np.full((len(seeds), len(cases)), np.nan)
    for seed, case, value in measured:
        dice[row[seed], column[case]] = value
    return dice, tuple(seeds), tuple(cases)


def _means(tables: Sequence[Floats]) -> list[Means]:
    """Of each table of Dice; those of one shape are reckoned together."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, table in enumerate(tables):
        places.setdefault(table.shape, []).append(place)
    found: list[Any] = [None] * len(tables)
    for (n_seeds, _), own in places.items():
        dice = np.stack([tables[place] for place in own])
        present = ~np.isnan(dice)
        counts = present.sum(axis=2)
        by_seed = np.full(counts.shape, np.nan)
        sums = np.where(present, dice, 0.0).sum(axis=2)
        np.divide(sums, counts, out=by_seed, where=counts > 0)
        nothing = np.full(len(own), np.nan)
        mean = by_seed.mean(axis=1) if n_seeds else nothing
        spread = by_seed.std(axis=1, ddof=1) if n_seeds > 1 else nothing
        for n, place in enumerate(own):
            each = tuple(by_seed[n].tolist())
            found[place] = Means(each, float(mean[n]), float(spread[n]), bool(present[n].all()))
    return found


def pair(synthetic: Arm, real: Arm) -> Pairs:
    """The two arms case by case, over the seeds that both have."""
    seeds, cases = synthetic.seeds, synthetic.cases
    if (seeds, cases) == (real.seeds, real.cases):
        if seeds and synthetic.means.whole and real.means.whole:
            return Pairs(real.dice, synthetic.dice, cases, seeds, unshared=(), absent=0, unpaired=0)
    else:
        seeds = tuple(sorted({*synthetic.seeds} & {*real.seeds}))
        cases = tuple(sorted({*synthetic.cases} | {*real.cases}))
    rs, r = (_of(arm, seeds, cases) for arm in (synthetic, real))
    present = ~np.isnan(np.concatenate([rs, r]))
    whole = present.all(axis=0) & bool(seeds)
    absent = ~present.any(axis=0) & bool(seeds)
    return Pairs(
        r=r[:, whole],
        rs=rs[:, whole],
        cases=tuple(compress(cases, whole.tolist())),
        seeds=seeds,
        unshared=tuple(sorted(set(synthetic.seeds) ^ set(real.seeds))),
        absent=int(absent.sum()),
        unpaired=int((~whole & ~absent).sum()),
    )


def pair_all(arms: Mapping[Key, Arm]) -> dict[Key, Pairs]:
    """Every arm that is done beside its baseline, where that is done too."""
    compared = {key: key.baseline for key in arms if key.generator}
    return {
        key: pair(arms[key], arms[baseline])
        for key, baseline in compared.items()
        if baseline in arms and arms[key].done and arms[baseline].done
    }


def _of(arm: Arm, seeds: tuple[int, ...], cases: tuple[str, ...]) -> Floats:
    """An arm's Dice at some of its seeds, (n_seeds, n_cases); nan at cases that it lacks."""
    if (arm.seeds, arm.cases) == (seeds, cases):
        return arm.dice
    values = np.full((len(seeds), len(cases)), np.nan)
    at = {case: n for n, case in enumerate(cases)}
    rows = [arm.seeds.index(seed) for seed in seeds]
    values[:, [at[case] for case in arm.cases]] = arm.dice[rows]
    return values

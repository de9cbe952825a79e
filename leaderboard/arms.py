"""What a segmenter was trained on and the Dice it reached, by case and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leaderboard.inputs import ARM_KEY, CellEnd, Inputs, ends_by

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


@dataclass(frozen=True)
class Arm:
    """Dice of one arm and how its cells ended."""

    dice: Floats  # (n_seeds, n_cases), nan where a structure is absent or a seed left a hole
    seeds: tuple[int, ...]  # planned
    cases: tuple[str, ...]
    cells: tuple[CellEnd, ...]

    @cached_property
    def by_seed(self) -> Floats:
        """Mean over the cases that have a value, (n_seeds,); nan for a seed that left a hole."""
        present = ~np.isnan(self.dice)
        counts = present.sum(axis=1)
        sums = np.where(present, self.dice, 0.0).sum(axis=1)
        mean = np.full(len(sums), np.nan)
        np.divide(sums, counts, out=mean, where=counts > 0)
        return mean

    @cached_property
    def mean(self) -> float:
        """Mean over seeds; nan when one of them left a hole."""
        return float(self.by_seed.mean()) if self.seeds else float("nan")

    @cached_property
    def spread(self) -> float:
        """Standard deviation over seeds; nan with one seed."""
        return float(self.by_seed.std(ddof=1)) if len(self.seeds) > 1 else float("nan")

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
    return {
        Key(*key): _arm(measured.get(key, []), cells)
        for key, cells in ends_by(inputs.segment_cells, ARM_KEY).items()
    }


def _arm(measured: Sequence[tuple[int, str, float]], cells: Sequence[CellEnd]) -> Arm:
    seeds = sorted({cell.seed for cell in cells})
    cases = sorted({case for _, case, _ in measured})
    row = {seed: n for n, seed in enumerate(seeds)}
    column = {case: n for n, case in enumerate(cases)}
    dice = np.full((len(seeds), len(cases)), np.nan)
    for seed, case, value in measured:
        dice[row[seed], column[case]] = value
    return Arm(dice, tuple(seeds), tuple(cases), tuple(cells))


def pair(synthetic: Arm, real: Arm) -> Pairs:
    """The two arms case by case, over the seeds that both have."""
    seeds = sorted(set(synthetic.seeds) & set(real.seeds))
    cases = sorted(set(synthetic.cases) | set(real.cases))
    rs, r = (_of(arm, seeds, cases) for arm in (synthetic, real))
    present = ~np.isnan(np.concatenate([rs, r]))
    whole = present.all(axis=0) & bool(seeds)
    absent = ~present.any(axis=0) & bool(seeds)
    return Pairs(
        r=r[:, whole],
        rs=rs[:, whole],
        cases=tuple(case for case, kept in zip(cases, whole, strict=True) if kept),
        seeds=tuple(seeds),
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


def _of(arm: Arm, seeds: Sequence[int], cases: Sequence[str]) -> Floats:
    """An arm's Dice at some of its seeds, (n_seeds, n_cases); nan at cases that it lacks."""
    if arm.seeds == tuple(seeds) and arm.cases == tuple(cases):
        return arm.dice
    values = np.full((len(seeds), len(cases)), np.nan)
    at = {case: n for n, case in enumerate(cases)}
    rows = [arm.seeds.index(seed) for seed in seeds]
    values[:, [at[case] for case in arm.cases]] = arm.dice[rows]
    return values

"""What a segmenter was trained on and the Dice it reached, by case and seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leaderboard.inputs import ARM_KEY, Inputs


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
    """Dice of one arm: cases down, planned seeds across, nan where a structure is absent."""

    dice: pd.DataFrame
    cells: pd.DataFrame

    @property
    def by_seed(self) -> pd.Series[float]:
        """Mean over the cases that have a value; nan for a seed that left a hole."""
        return self.dice.mean(axis=0)

    @property
    def mean(self) -> float:
        """Mean over seeds; nan when one of them left a hole."""
        return float(self.by_seed.mean(skipna=False))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; nan with one seed."""
        return float(self.by_seed.std(ddof=1, skipna=False))

    @property
    def done(self) -> bool:
        """Whether every planned seed ended well."""
        return bool((self.cells["status"] == "done").all())


class Pairs(NamedTuple):
    """Dice of two arms, ``(n_seeds, n)``, of the n cases that have one in both and in all seeds."""

    r: NDArray[np.float64]
    rs: NDArray[np.float64]
    cases: tuple[str, ...]
    seeds: tuple[int, ...]  # those that both arms have
    unshared: tuple[int, ...]  # seeds of one arm only
    absent: int  # cases without a value in any arm and seed
    unpaired: int  # cases with a value in some of them only


def read_arms(inputs: Inputs) -> dict[Key, Arm]:
    """Every arm of the plan, in the order of its cells."""
    dice = {_key(group): group for _, group in inputs.dice.groupby(ARM_KEY)}
    arms = {}
    for _, cells in inputs.segment_cells.groupby(ARM_KEY, sort=False):
        key = _key(cells)
        cases = dice[key] if key in dice else inputs.dice.head(0)
        by_seed = cases.pivot(index="case", columns="seed", values="value")
        arms[key] = Arm(by_seed.reindex(columns=sorted(set(cells["seed"]))), cells)
    return arms


def pair(synthetic: Arm, real: Arm) -> Pairs:
    """The two arms case by case, over the seeds that both have."""
    seeds = synthetic.dice.columns.intersection(real.dice.columns)
    unshared = synthetic.dice.columns.symmetric_difference(real.dice.columns)
    both = {"rs": synthetic.dice[seeds], "r": real.dice[seeds]}
    joined = pd.concat(both, axis=1).sort_index()
    present = joined.notna()
    whole = present.all(axis=1) & bool(len(seeds))
    absent = ~present.any(axis=1) & bool(len(seeds))
    values = joined[whole].to_numpy("float64").T
    return Pairs(
        r=values[len(seeds) :],
        rs=values[: len(seeds)],
        cases=tuple(joined.index[whole]),
        seeds=tuple(map(int, seeds)),
        unshared=tuple(sorted(map(int, unshared))),
        absent=int(absent.sum()),
        unpaired=int((~whole & ~absent).sum()),
    )


def _key(rows: pd.DataFrame) -> Key:
    return Key(*rows[ARM_KEY].iloc[0].tolist())

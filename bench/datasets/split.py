"""Split of the cases into train, val, test and held: by patient, and before anything else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from bench.errors import InputError

if TYPE_CHECKING:
    from bench.volumes import VolumeSet

PARTS = ("train", "val", "test")


def seeded_order(names: Iterable[str], seed: int, salt: str) -> list[str]:
    """The names in an order that depends on seed, salt and each name alone.

    Sorting by a hash instead of shuffling keeps the order the same on every platform and library
    version, and adding a case does not reorder the others.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}:{seed}:{name}".encode()).digest())


def split_cases(
    patients: Mapping[str, str], fractions: Sequence[float], seed: int, holdout: float = 0.0
) -> dict[str, tuple[str, ...]]:
    """Case ids of train, val, test and, with a holdout, held; all cases of a patient on one side.

    Args:
        patients: case id -> patient id.
        fractions: of the patients, for train, val and test; val and test are rounded to whole
            patients, each part gets at least one.
        seed: of the draw.
        holdout: fraction of all patients that leave train for held, rounded to whole patients and
            at least one unless it is 0; val and test are the same whatever it is.

    Raises:
        InputError: fewer than three patients, or a holdout that leaves train nobody.
    """
    order = seeded_order(set(patients.values()), seed, "split")
    if len(order) < len(PARTS):
        raise InputError(
            f"There are {len(order)} patients ({len(patients)} cases), too few to give train, val "
            "and test at least one each; give at least 3."
        )
    n = len(order)
    n_val = max(1, round(n * fractions[1]))
    n_test = max(1, round(n * fractions[2]))
    # Rounding up small parts must leave train a patient.
    while n_val + n_test >= n:
        n_val, n_test = (n_val - 1, n_test) if n_val > n_test else (n_val, n_test - 1)
    side = dict.fromkeys(order, "train")
    side.update(dict.fromkeys(order[:n_val], "val"))
    side.update(dict.fromkeys(order[n_val : n_val + n_test], "test"))
    n_held = max(1, round(n * holdout)) if holdout else 0
    n_train = n - n_val - n_test
    if n_held >= n_train:
        raise InputError(
            f"data.holdout {holdout:g} takes {n_held} of {n} patients, but the training split has "
            f"{n_train} and must keep at least one; give more cases or a smaller data.holdout."
        )
    side.update(dict.fromkeys(order[n_val + n_test : n_val + n_test + n_held], "held"))
    cases: dict[str, list[str]] = {part: [] for part in (*PARTS, *(["held"] if n_held else []))}
    for case in sorted(patients):
        cases[side[patients[case]]].append(case)
    return {part: tuple(ids) for part, ids in cases.items()}


def guard_split(
    train: Iterable[str], val: Iterable[str], test: Iterable[str], held: Iterable[str] = ()
) -> None:
    """Raise ValueError if an id (of a case or of a patient) is in more than one part."""
    parts = {"train": set(train), "val": set(val), "test": set(test), "held": set(held)}
    for first, second in combinations(parts, 2):
        shared = sorted(parts[first] & parts[second])
        if shared:
            more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
            raise ValueError(
                f"{shared[0]}{more} is in both {first} and {second}; no score would mean anything: "
                "prepare the data again."
            )


def guard_sets(
    train: VolumeSet, val: VolumeSet, test: VolumeSet, held: VolumeSet | None = None
) -> None:
    """`guard_split` over the case ids and over the patient ids of the volume sets."""
    parts = (train, val, test, *([held] if held is not None else []))
    guard_split(*(part.ids for part in parts))
    guard_split(*((str(c.source.get("patient", c.id)) for c in part.cases) for part in parts))

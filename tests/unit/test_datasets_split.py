"""The split: by patient, complete, disjoint, reproducible; and the guard behind it."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.datasets import guard_sets, guard_split
from bench.datasets.split import PARTS, seeded_order, split_cases
from bench.errors import InputError
from bench.volumes import VolumeSet, VolumeSetWriter

PATIENTS = st.dictionaries(
    st.text("abc0123456789_", min_size=1, max_size=6),
    st.sampled_from([f"p{i}" for i in range(30)]),
    min_size=3,
    max_size=60,
).filter(lambda cases: len(set(cases.values())) >= 3)
FRACTIONS = st.tuples(st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0.05, 1)).map(
    lambda f: tuple(x / sum(f) for x in f)
)


@given(patients=PATIENTS, fractions=FRACTIONS, seed=st.integers(0, 2**32))
def test_parts_are_disjoint_by_patient_cover_all_and_repeat(patients, fractions, seed) -> None:
    parts = split_cases(patients, fractions, seed)
    assert sorted(id for ids in parts.values() for id in ids) == sorted(patients)
    owners = [{patients[id] for id in parts[part]} for part in PARTS]
    assert all(owners)
    assert sum(map(len, owners)) == len(set(patients.values()))
    guard_split(*(parts[part] for part in PARTS))
    guard_split(*owners)
    reversed_order = dict(reversed(patients.items()))
    assert split_cases(reversed_order, fractions, seed) == parts


@given(n=st.integers(20, 400), seed=st.integers(0, 99))
def test_sizes_follow_the_fractions(n: int, seed: int) -> None:
    parts = split_cases({str(i): str(i) for i in range(n)}, (0.7, 0.1, 0.2), seed)
    for part, fraction in zip(PARTS, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(parts[part]) - fraction * n) <= 1


@given(patients=PATIENTS, fractions=FRACTIONS, seed=st.integers(0, 99), holdout=st.floats(0, 0.5))
def test_a_holdout_comes_out_of_train_alone(patients, fractions, seed, holdout) -> None:
    without = split_cases(patients, fractions, seed)
    n = len(set(patients.values()))
    expected = max(1, round(n * holdout)) if holdout else 0
    if expected >= len({patients[id] for id in without["train"]}):
        with pytest.raises(InputError, match=rf"takes {expected} of {n} patients"):
            split_cases(patients, fractions, seed, holdout)
        return
    parts = split_cases(patients, fractions, seed, holdout)
    assert (parts["val"], parts["test"]) == (without["val"], without["test"])
    held = parts.pop("held", ())
    assert sorted([*parts["train"], *held]) == sorted(without["train"])
    assert len({patients[id] for id in held}) == expected
    assert not {patients[id] for id in held} & {patients[id] for id in parts["train"]}
    guard_split(**parts, held=held)


def test_a_larger_holdout_holds_the_same_patients_and_more() -> None:
    patients = {str(i): str(i) for i in range(40)}
    small, large = (split_cases(patients, (0.7, 0.1, 0.2), 0, h)["held"] for h in (0.1, 0.3))
    assert set(small) < set(large)


def test_three_patients_give_one_each_whatever_the_fractions() -> None:
    parts = split_cases({"a": "a", "b": "b", "c": "c"}, (0.02, 0.49, 0.49), 0)
    assert {len(ids) for ids in parts.values()} == {1}


def test_seeds_give_different_splits() -> None:
    patients = {str(i): str(i) for i in range(50)}
    assert len({split_cases(patients, (0.7, 0.1, 0.2), seed)["test"] for seed in range(20)}) == 20


def test_the_split_does_not_favour_anyone() -> None:
    patients = {str(i): str(i) for i in range(10)}
    seeds = 2000
    tested = [id for s in range(seeds) for id in split_cases(patients, (0.7, 0.1, 0.2), s)["test"]]
    counts = np.array([tested.count(id) for id in patients])
    # Chi-square with 9 degrees of freedom: above 27.9 with probability 0.001.
    assert ((counts - seeds / 5) ** 2 / (seeds / 5)).sum() < 27.9


def test_an_order_is_stable_when_a_case_is_added() -> None:
    names = [f"case-{i}" for i in range(30)]
    longer = seeded_order([*names, "new"], 3, "cases")
    assert [name for name in longer if name != "new"] == seeded_order(names, 3, "cases")


def test_too_few_patients_are_refused_with_their_number() -> None:
    with pytest.raises(InputError, match=r"There are 2 patients \(3 cases\).* at least 3"):
        split_cases({"a": "p", "b": "p", "c": "q"}, (0.7, 0.1, 0.2), 0)


@pytest.mark.parametrize("leak", [*combinations(("train", "val", "test", "held"), 2)])
def test_the_guard_names_what_leaks_and_where(leak: tuple[str, str]) -> None:
    parts = {"train": ["a"], "val": ["b"], "test": ["c"], "held": ["d"]}
    for part in leak:
        parts[part] = [*parts[part], "p17"]
    with pytest.raises(ValueError, match=f"p17 is in both {leak[0]} and {leak[1]}"):
        guard_split(**parts)


def test_the_guard_of_sets_sees_one_patient_under_two_ids(tmp_path: Path) -> None:
    def volumes(id: str, patient: str) -> VolumeSet:
        with VolumeSetWriter(tmp_path / id, (2, 2, 2), {0: "background"}) as writer:
            writer.append(id, np.zeros((2, 2, 2)), source={"patient": patient})
        return VolumeSet.open(tmp_path / id)

    guard_sets(volumes("a", "p1"), volumes("b", "p2"), volumes("c", "p3"))
    with pytest.raises(ValueError, match="p1 is in both train and test"):
        guard_sets(volumes("a", "p1"), volumes("b", "p2"), volumes("c", "p1"))
    with pytest.raises(ValueError, match="p2 is in both val and held"):
        guard_sets(*(volumes(id, f"p{n}") for id, n in zip("abcd", (1, 2, 3, 2), strict=True)))

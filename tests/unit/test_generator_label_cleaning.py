"""Cleaning rules of generated label maps, and what makes a map be rejected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from bench.datasets.phantom import LABEL_NAMES, phantom_case
from bench.errors import InputError
from generators.label_cleaning import CleaningConfig, clean, judge, rules_of

NAMES = {0: "background", 1: "liver", 2: "portal vein", 4: "kidney"}
SIDE = 12
FACES = ndimage.generate_binary_structure(3, 3)
Label = NDArray[np.uint8]


def config(**values: Any) -> CleaningConfig:
    return CleaningConfig.model_validate(values)


def scene() -> Label:
    """A liver with a vein that leaves it, a vein far away, a kidney, specks in and out."""
    label = np.zeros((SIDE,) * 3, dtype=np.uint8)
    label[1:7, 1:7, 1:7] = 1
    label[3, 3, 2:11] = 2  # 9 voxels, the last 4 beyond the liver's surface
    label[10, 10, 2:8] = 2  # 6 voxels that touch nothing
    label[9:12, 0:3, 0:3] = 4
    label[5, 5, 5] = 2  # a speck in the liver
    label[10, 2, 10] = 1  # a speck of liver in the background
    return label


def test_structures_lie_inside_the_organ_and_others_stay() -> None:
    cleaned = clean(scene(), NAMES, config(reach=2 / SIDE, min_voxels=1))
    assert cleaned[10, 10, 2:8].tolist() == [0] * 6
    assert cleaned[10, 2, 10] == 0
    # The liver's voxels beside the vein's are 1, then sqrt(2) and sqrt(5) voxels away.
    assert cleaned[3, 3, 2:11].tolist() == [2] * 6 + [0] * 3
    assert cleaned[5, 5, 5] == 2
    assert (cleaned[9:12, 0:3, 0:3] == 4).all()
    strict = clean(scene(), NAMES, config(reach=1 / SIDE, min_voxels=1))
    assert strict[3, 3, 2:11].tolist() == [2] * 5 + [0] * 4
    named = clean(scene(), NAMES, config(inside=["kidney"], min_voxels=1))
    assert not (named == 4).any()
    assert (named[10, 10, 2:8] == 2).all()


def test_a_structure_deep_in_the_organ_is_inside_however_large() -> None:
    label = np.zeros((20,) * 3, dtype=np.uint8)
    label[2:18, 2:18, 2:18] = 1
    label[4:16, 4:16, 4:16] = 2  # 6 voxels from the organ's voxels, in a hole of it
    np.testing.assert_array_equal(clean(label, NAMES, config(reach=0)), label)


def test_without_an_organ_only_specks_go_and_take_their_surroundings() -> None:
    cleaned = clean(scene(), NAMES, config(organ=None, min_voxels=3))
    untouched = scene()
    untouched[5, 5, 5], untouched[10, 2, 10] = 1, 0
    np.testing.assert_array_equal(cleaned, untouched)


def test_auto_is_the_liver_where_the_data_have_one() -> None:
    hippocampus = {0: "background", 1: "anterior", 2: "posterior"}
    abdomen = {0: "background", 1: "Liver", 2: "right_kidney", 3: "spleen"}
    assert rules_of(config(), LABEL_NAMES).organ == 1
    assert rules_of(config(), LABEL_NAMES).inside == (2, 3, 4)
    assert rules_of(config(), hippocampus).organ is None
    rules = rules_of(config(), abdomen)
    assert (rules.organ, rules.inside) == (1, ())


def test_labels_that_the_data_do_not_have_are_refused() -> None:
    for values in ({"organ": "spleen"}, {"inside": ["spleen"]}, {"required": ["spleen"]}):
        with pytest.raises(InputError, match="'spleen'"):
            rules_of(config(**values), NAMES)


@pytest.mark.parametrize("grid", [(32, 32, 32), (48, 32, 64), (64, 64, 64)])
def test_anatomy_is_clean_already(grid: tuple[int, int, int]) -> None:
    for index in range(2):
        label = phantom_case(index, 5, grid).label
        found = judge(label, LABEL_NAMES, config(required=list(LABEL_NAMES.values())[1:]))
        assert found.faults == ()
        assert found.changed < 2e-3


def test_maps_that_are_no_anatomy_are_rejected() -> None:
    empty = np.zeros((SIDE,) * 3, dtype=np.uint8)
    assert judge(empty, NAMES, config(organ=None)).faults == ("no label at all",)
    assert "no liver" in judge(empty, NAMES, config()).faults
    no_liver = scene()
    no_liver[no_liver == 1] = 0
    assert judge(no_liver, NAMES, config(min_voxels=1)).faults == ("no liver",)
    lacking = judge(scene(), NAMES, config(required=["kidney"], min_voxels=28))
    assert "no kidney" in lacking.faults
    noise = np.random.default_rng(0).choice([0, 1, 2], (SIDE,) * 3, p=[0.9, 0.06, 0.04])
    faults = judge(noise.astype(np.uint8), NAMES, config(organ=None)).faults
    assert any(fault.startswith("cleaning changed ") for fault in faults)
    assert judge(scene(), NAMES, config()).faults == ()


def test_the_share_changed_is_of_the_labelled_voxels() -> None:
    label = np.zeros((SIDE,) * 3, dtype=np.uint8)
    label[1:5, 1:5, 1:5] = 1
    label[8, 8, 0:4] = 1
    found = judge(label, NAMES, config())
    assert found.changed == 4 / (64 + 4)
    assert judge(label, NAMES, config(max_changed=4 / 68)).faults == ()
    assert len(judge(label, NAMES, config(max_changed=3.9 / 68)).faults) == 1


maps = st.one_of(
    arrays(np.uint8, (5, 6, 5), elements=st.sampled_from([0, 1, 2, 4])),
    arrays(np.uint8, (4, 4, 4), elements=st.sampled_from([0, 0, 0, 1, 2])).map(
        lambda coarse: coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    ),
)


@settings(max_examples=60, deadline=None)
@given(maps, st.booleans(), st.integers(1, 9), st.sampled_from([0.0, 0.25, 0.5]))
def test_a_cleaned_map_keeps_the_rules(
    label: Label, organ: bool, min_voxels: int, reach: float
) -> None:
    rules = config(organ="liver" if organ else None, min_voxels=min_voxels, reach=reach)
    before = label.copy()
    cleaned = clean(label, NAMES, rules)
    np.testing.assert_array_equal(label, before)
    assert cleaned.shape == label.shape
    assert cleaned.dtype == np.uint8
    assert set(np.unique(cleaned)) <= {0, *np.unique(label)}
    assert not cleaned[label == 0].any()  # background is never labelled
    np.testing.assert_array_equal(clean(cleaned, NAMES, rules), cleaned)
    for value in set(np.unique(cleaned)) - {0}:
        sizes = np.bincount(ndimage.label(cleaned == value, FACES)[0].ravel())[1:]
        assert sizes.min() >= min_voxels
    if organ and (cleaned == 1).any():
        assert ndimage.label((cleaned == 1) | (cleaned == 2), FACES)[1] == 1
        body = np.argwhere(ndimage.binary_fill_holes(cleaned == 1))
        for voxel in np.argwhere(cleaned == 2):  # distances by brute force
            away = np.sqrt(((body - voxel) ** 2).sum(1)).min()
            assert away <= reach * min(label.shape)

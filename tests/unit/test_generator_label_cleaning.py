"""Cleaning rules of generated label maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from bench.errors import InputError
from generators.label_cleaning import CleaningConfig, check_cleaning, clean

NAMES = {0: "background", 1: "liver", 2: "vein"}
SIDE = 12


def scene() -> NDArray[np.uint8]:
    """A liver with a vein that leaves it, a second vein far away, specks in and out."""
    label = np.zeros((SIDE,) * 3, dtype=np.uint8)
    label[1:7, 1:7, 1:7] = 1
    label[3, 3, 2:10] = 2  # 8 voxels, of which 3 outside the liver
    label[10, 10, 2:8] = 2  # 6 voxels that touch nothing
    label[5, 5, 5] = 2  # a speck in the liver
    label[10, 2, 10] = 1  # a speck of liver in the background
    return label


def test_structures_that_do_not_touch_the_organ_are_dropped() -> None:
    cleaned = clean(scene(), NAMES, CleaningConfig(organ="liver", min_voxels=1))
    assert cleaned[10, 10, 2:8].tolist() == [0] * 6
    assert cleaned[10, 2, 10] == 0
    assert cleaned[3, 3, 2:10].tolist() == [2] * 8
    assert cleaned[5, 5, 5] == 2


def test_without_an_organ_only_specks_go_and_take_their_surroundings() -> None:
    cleaned = clean(scene(), NAMES, CleaningConfig(min_voxels=3))
    assert cleaned[10, 10, 2:8].tolist() == [2] * 6
    assert cleaned[5, 5, 5] == 1
    assert cleaned[10, 2, 10] == 0
    untouched = scene()
    untouched[5, 5, 5], untouched[10, 2, 10] = 1, 0
    np.testing.assert_array_equal(cleaned, untouched)


def test_an_empty_organ_drops_nothing() -> None:
    label = scene()
    label[label == 1] = 0
    cleaned = clean(label, NAMES, CleaningConfig(organ="liver", min_voxels=1))
    np.testing.assert_array_equal(cleaned, label)


def test_an_all_background_map_stays() -> None:
    empty = np.zeros((SIDE,) * 3, dtype=np.uint8)
    np.testing.assert_array_equal(clean(empty, NAMES, CleaningConfig(organ="liver")), empty)


def test_unknown_organ_is_refused() -> None:
    check_cleaning(CleaningConfig(organ="liver"), NAMES)
    with pytest.raises(InputError, match="'spleen'"):
        check_cleaning(CleaningConfig(organ="spleen"), NAMES)


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.uint8, (5, 5, 5), elements=st.integers(0, 2)),
    st.sampled_from([None, "liver"]),
    st.integers(1, 6),
)
def test_cleaning_leaves_its_input_alone_and_makes_up_no_structure(
    label: NDArray[np.uint8], organ: str | None, min_voxels: int
) -> None:
    before = label.copy()
    cleaned = clean(label, NAMES, CleaningConfig(organ=organ, min_voxels=min_voxels))
    np.testing.assert_array_equal(label, before)
    assert (cleaned.shape, cleaned.dtype) == (label.shape, np.uint8)
    assert set(np.unique(cleaned)) <= {0, *np.unique(label)}

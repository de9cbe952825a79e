"""clDice: closed forms on lines and tubes, MONAI's soft version on thin lines, properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.losses.cldice import SoftclDiceLoss
from numpy.typing import NDArray
from skimage.measure import label

from metrics.cldice import cldice, skeleton

Mask = NDArray[np.bool_]

masks = arrays(np.bool_, (5, 4, 6))


def tube(side: int, length: int, shape: tuple[int, int, int] = (14, 14, 40)) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    mask[4 : 4 + side, 4 : 4 + side, 3 : 3 + length] = True
    return mask


def test_half_a_line_is_all_precise_and_half_complete() -> None:
    assert cldice(tube(1, 15), tube(1, 30)) == pytest.approx(2 * 1.0 * 0.5 / 1.5)
    assert cldice(tube(1, 30), tube(1, 15)) == pytest.approx(2 * 0.5 * 1.0 / 1.5)


def test_thickness_does_not_matter_where_the_centre_is_met() -> None:
    thick = tube(5, 30)
    middle = np.zeros_like(thick)
    middle[6, 6, 3:33] = True
    assert cldice(middle, thick) == 1.0
    assert cldice(thick, middle) == 1.0
    beside = np.zeros_like(thick)
    beside[4, 4, 3:33] = True  # inside the tube, off its centre line
    assert cldice(beside, thick) == 0.0


def test_a_gap_costs_its_share_of_the_centre_line() -> None:
    whole = tube(3, 30)
    broken = whole.copy()
    broken[:, :, 15:21] = False
    line = skeleton(whole).sum()
    sensitivity = (line - 6) / line
    assert cldice(broken, whole) == pytest.approx(2 * sensitivity / (1 + sensitivity))


def test_equals_the_soft_version_on_thin_lines() -> None:
    """A line of one voxel is its own skeleton, the soft one as well."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = np.zeros((2, 12, 12, 12), dtype=bool)
        for mask in (one, other):
            for x, y in ((1, 1), (1, 6), (6, 1), (6, 6)):
                start, stop = sorted(rng.choice(13, 2, replace=False))
                mask[x, y, start:stop] = True
        pair = (torch.from_numpy(m)[None, None].float() for m in (other, one))
        exact = {"smooth_nr": 0.0, "smooth_dr": 0.0, "smooth": 1e-12}
        soft = 1 - SoftclDiceLoss(**exact)(*pair).item()
        assert cldice(one, other) == pytest.approx(soft, rel=1e-6)


@settings(max_examples=80, deadline=None)
@given(masks, masks)
def test_properties(prediction: Mask, reference: Mask) -> None:
    assume(prediction.any() and reference.any())
    score = cldice(prediction, reference)
    assert 0 <= score <= 1
    assert score == cldice(reference, prediction)
    assert cldice(reference, reference) == 1.0
    assert score == cldice(np.pad(prediction, 3), np.pad(reference, 3))
    if not (prediction & reference).any():
        assert score == 0


@settings(max_examples=150, deadline=None)
@given(
    arrays(
        np.bool_,
        st.tuples(*[st.integers(1, 7)] * 3),
        elements=st.sampled_from([True, True, False]),
    )
)
def test_every_component_keeps_a_part_of_its_skeleton(mask: Mask) -> None:
    thin = skeleton(mask)
    assert thin.shape == mask.shape
    assert not (thin & ~mask).any()
    found = label(mask, connectivity=3)
    np.testing.assert_array_equal(np.unique(found[thin]), np.unique(found[mask]))


@pytest.mark.parametrize("side", [2, 4])
def test_even_blocks_and_tubes_are_not_lost(side: int) -> None:
    block = np.zeros((8, 8, 8), dtype=bool)
    block[2 : 2 + side, 2 : 2 + side, 2 : 2 + side] = True
    assert 1 <= skeleton(block).sum() <= side
    assert cldice(block, block) == 1.0
    line = np.argwhere(skeleton(tube(side, 30)))
    assert 26 <= len(line) <= 30
    assert len(np.unique(line[:, 2])) == len(line)  # one voxel in each cross-section


def test_a_block_beside_an_odd_tube_keeps_a_voxel() -> None:
    both = tube(3, 30)
    both[10:12, 10:12, 10:12] = True
    assert skeleton(both)[10:12, 10:12, 10:12].sum() == 1
    assert skeleton(both).sum() == skeleton(tube(3, 30)).sum() + 1


def test_absent_structures() -> None:
    empty, some = np.zeros((3, 4, 5), dtype=bool), np.ones((3, 4, 5), dtype=bool)
    assert math.isnan(cldice(empty, empty))
    assert math.isnan(cldice(some, empty))
    assert cldice(empty, some) == 0.0


def test_refuses() -> None:
    mask = np.ones((2, 2, 2), dtype=bool)
    with pytest.raises(ValueError, match=r"\(2, 2, 2\) and the reference \(2, 2\)"):
        cldice(mask, mask[0])
    with pytest.raises(ValueError, match="prediction has dtype float64"):
        cldice(mask.astype(float), mask)
    with pytest.raises(ValueError, match="2 or 3 axes"):
        cldice(mask.ravel(), mask.ravel())
    with pytest.raises(ValueError, match="at least one voxel"):
        cldice(mask[:0], mask[:0])

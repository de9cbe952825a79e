"""Shares of a batch: together they are the batch, and their weights sum to one."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.ranks import ALONE, Ranks


@given(size=st.integers(1, 9), world=st.integers(2, 6))
def test_shares_are_the_batch_cut_in_pieces(size: int, world: int) -> None:
    batch = (7, torch.arange(size), {"labels": np.arange(size)}, torch.zeros(size + 1))
    shares = [Ranks(rank, world).share(batch, size) for rank in range(world)]
    assert abs(sum(weight for _, weight in shares) - 1) < 1e-12
    counted = [data for data, weight in shares if weight]
    assert torch.equal(torch.cat([data[1] for data in counted]), batch[1])
    assert np.array_equal(np.concatenate([data[2]["labels"] for data in counted]), np.arange(size))
    for (step, rows, _, other), weight in shares:
        assert step == 7
        assert len(rows) == max(1, round(weight * size)), "a rank without a row takes one"
        assert len(other) == size + 1, "no cases, so whole"


def test_alone_nothing_is_changed() -> None:
    batch = (torch.ones(2), [3])
    assert ALONE.share(batch, 2)[0] is batch
    assert ALONE.mean(0.1, 1.0) == 0.1
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.told(lambda: {"dice": 0.5}) == {"dice": 0.5}

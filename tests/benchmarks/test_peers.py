"""Our metrics against other libraries' in one run: the same values, and never slower.

The values are compared on small inputs; with VOXELBENCH_LONG=1 also at the sizes of the table of
docs/peers.md, with the times. Times are of the processor, medians of rounds taken in turn.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import peer_inputs
import peers
import pytest
from numpy.typing import NDArray
from peer_features import root_error
from peers import Peer

from metrics.frechet import frechet_distance

pytestmark = pytest.mark.filterwarnings("ignore")

# More rows than dimensions and fewer; sets of different sizes, which the KID of no peer takes.
SMALL = [
    *((peer, size) for peer in peers.FEATURE_PEERS for size in ((200, 48), (40, 96))),
    *((peer, (40, 96, 56)) for peer in peers.FEATURE_PEERS if peer.metric != "KID"),
    *((peer, (32,)) for peer in (*peers.LABEL_PEERS, *peers.IMAGE_PEERS)),
]
FULL = peers.cases(ns=(144, 504), sides=(64, 128))
LONG = pytest.mark.skipif(
    os.environ.get("VOXELBENCH_LONG") != "1",
    reason="set VOXELBENCH_LONG=1: the matrix roots of the peers take about 15 minutes",
)


def _name(value: Any) -> str:
    return f"{value.metric}, {value.name}" if isinstance(value, Peer) else peers.named(value)


def _require(peer: Peer) -> None:
    pytest.importorskip(peer.package, reason=f"{peer.package}, the peer, is not installed")


def _check_value(
    peer: Peer, data: Any, ours: NDArray[np.float64], theirs: NDArray[np.float64]
) -> None:
    assert np.isfinite(ours).all()
    assert np.isfinite(theirs).all()
    if not peer.same_value:
        return
    tolerance = peer.rtol
    if peer.metric == "Fréchet" and "n × n" not in peer.name:
        tolerance = max(tolerance, root_error(data) / float(theirs[0]))
    assert peers.difference(ours, theirs) <= tolerance


@pytest.mark.parametrize(("peer", "size"), [c for c in SMALL if c[0].same_value], ids=_name)
def test_the_value_is_the_peers(peer: Peer, size: tuple[int, ...]) -> None:
    _require(peer)
    data = peers.inputs(peer, size)
    ours, theirs = peers.values(peers.OURS[peer.metric](data)), peers.values(peer.prepare(data))
    _check_value(peer, data, ours, theirs)


@pytest.mark.parametrize(("n", "d"), [(6, 14), (14, 6)])
def test_the_frechet_distance_has_all_its_digits_where_the_covariances_are_singular(
    n: int, d: int
) -> None:
    """The definition, with roots of d x d matrices to 50 digits."""
    mpmath = pytest.importorskip("mpmath", reason="mpmath, which torch brings, is not installed")
    data = peer_inputs.features(n, d)
    with mpmath.workdps(50):
        means, covariances = [], []
        for rows in map(mpmath.matrix, data):
            mean = mpmath.matrix([[mpmath.fsum(rows[:, column]) / n for column in range(d)]])
            centred = rows - mpmath.ones(n, 1) * mean
            means.append(mean)
            covariances.append(centred.T * centred / (n - 1))
        values, vectors = mpmath.eigsy(covariances[0])
        root = vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * vectors.T
        inner = mpmath.eigsy(root * covariances[1] * root, eigvals_only=True)
        traces = mpmath.fsum(covariance[i, i] for covariance in covariances for i in range(d))
        exact = mpmath.norm(means[0] - means[1]) ** 2 + traces
        exact -= 2 * mpmath.fsum(mpmath.sqrt(max(v, 0)) for v in inner)
    assert frechet_distance(*data) == pytest.approx(float(exact), rel=1e-12)


def test_a_value_on_one_side_alone_is_a_difference() -> None:
    one, nan, two = np.array([1.0]), np.array([np.nan]), np.array([1.0, 1.0])
    assert peers.difference(one, one) == 0
    assert peers.difference(one, 2 * one) == 0.5
    assert peers.difference(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0
    assert peers.difference(one, nan) == peers.difference(nan, one) == np.inf
    assert peers.difference(nan, nan) == peers.difference(one, two) == np.inf


# Milliseconds each, by wide margins: what every run of the suite can hold to.
QUICK = [
    case
    for case in peers.cases(ns=(144,), sides=(32,))
    if case[0].metric in ("KID", "PRDC", "MS-SSIM", "HD95", "surface Dice", "Dice")
]


@pytest.mark.parametrize(("peer", "size"), QUICK, ids=_name)
def test_the_time_is_no_longer_than_the_peers(peer: Peer, size: tuple[int, ...]) -> None:
    _require(peer)
    assert peers.measure(peer, size, budget=0.3).ratio >= peer.at_least


@LONG
@pytest.mark.slow
@pytest.mark.parametrize(("peer", "size"), FULL, ids=_name)
def test_the_value_is_the_peers_and_the_time_no_longer(
    benchmark: Any, peer: Peer, size: tuple[int, ...]
) -> None:
    _require(peer)
    row = peers.measure(peer, size)
    # pytest-benchmark's table is of our times; the peer's stand in the names.
    benchmark._timer = time.process_time
    benchmark.name = f"{row.metric}, {row.size}: {row.ratio:.3g} times as fast as {row.peer}"
    benchmark.extra_info.update(
        ratio=row.ratio, ours=row.seconds_ours._asdict(), peer=row.seconds_theirs._asdict()
    )
    data = peers.inputs(peer, size)
    benchmark.pedantic(peers.OURS[peer.metric](data), rounds=3, warmup_rounds=1)
    _check_value(peer, data, row.ours, row.theirs)
    assert row.ratio >= peer.at_least
    if peer.metric == "Fréchet" and peer.package == "monai" and size[0] == 144:
        assert row.ratio >= 100

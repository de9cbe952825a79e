"""Our metrics beside those of other libraries: values and times, as a table.

`OMP_NUM_THREADS=1 python tests/benchmarks/peers.py` prints docs/peers.md's table; peers that
are not installed are named under it. `test_peers.py` holds the same comparisons to their bounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import peer_features as of_features
import peer_inputs
import peer_volumes as of_volumes
from numpy.typing import NDArray
from peer_inputs import Call


class Peer(NamedTuple):
    """One library's way to compute what one of our functions computes.

    `prepare` gets the inputs and gives the call that is timed: tensors and one-hot masks, which a
    peer wants and ours does not, are made before the clock starts. `rtol` is how far the values may
    differ, relative to the peer's; `at_least` how many times faster ours has to be, below 1 only
    where both do the same work by the same call.
    """

    metric: str
    name: str
    package: str
    prepare: Callable[[Any], Call]
    rtol: float
    at_least: float = 1.0

    @property
    def same_value(self) -> bool:
        """Whether the peer's value is meant to be ours."""
        return self.rtol < OTHER_VALUE

    @property
    def missing(self) -> str:
        """Why the peer cannot be had here; empty where it can."""
        found = importlib.util.find_spec(self.package)
        return "" if found else f"{self.package} is not installed"


# --- the comparisons ----------------------------------------------------------------------------

# torchmetrics averages the coarsest scale over a border of mirrored voxels too, where Wang et al.,
# MONAI and ours use the windows that lie inside: another value, so the time alone is compared.
OTHER_VALUE = float("inf")

OURS: dict[str, Callable[[Any], Call]] = {
    "Fréchet": of_features.frechet,
    "KID": of_features.kernel,
    "PRDC": of_features.manifold,
    "precision, recall": of_features.precision_recall,
    "MS-SSIM": of_volumes.ms_ssim,
    "Dice": of_volumes.dice,
    "HD95": of_volumes.hd95,
    "surface Dice": of_volumes.surface_dice,
}
# Nine tenths of our KID's time go into three matrix products that torch-fidelity's makes alike.
SAME_WORK = 0.9
FEATURE_PEERS = (
    Peer("Fréchet", "MONAI FIDMetric", "monai", of_features.frechet_monai, 1e-6),
    Peer("Fréchet", "SciPy sqrtm", "scipy", of_features.frechet_scipy, 1e-6),
    Peer("Fréchet", "SciPy sqrtm of n × n", "scipy", of_features.frechet_scipy_small, 1e-8),
    Peer("Fréchet", "torchmetrics", "torchmetrics", of_features.frechet_torchmetrics, 1e-6),
    Peer("Fréchet", "torch-fidelity", "torch_fidelity", of_features.frechet_torch_fidelity, 1e-6),
    Peer("Fréchet", "pytorch-fid", "pytorch_fid", of_features.frechet_pytorch_fid, 1e-6),
    Peer("KID", "torchmetrics", "torchmetrics", of_features.kernel_torchmetrics, 1e-9),
    Peer(
        "KID",
        "torch-fidelity",
        "torch_fidelity",
        of_features.kernel_torch_fidelity,
        1e-9,
        SAME_WORK,
    ),
    Peer("PRDC", "prdc", "prdc", of_features.manifold_prdc, 1e-12),
    Peer(
        "precision, recall",
        "torch-fidelity",
        "torch_fidelity",
        of_features.precision_recall_torch_fidelity,
        1e-7,  # it counts in float32
    ),
)
LABEL_PEERS = (
    Peer("Dice", "MONAI, one-hot", "monai", of_volumes.dice_monai, 1e-6),
    Peer("Dice", "MONAI, class indices", "monai", of_volumes.dice_monai_indices, 1e-6),
    Peer("Dice", "torchmetrics", "torchmetrics", of_volumes.dice_torchmetrics, 1e-6),
    # MONAI finds the percentile's place between two distances in float32; the next line does not.
    Peer("HD95", "MONAI", "monai", of_volumes.hd95_monai, 1e-5),
    Peer("HD95", "SciPy distance transform", "scipy", of_volumes.hd95_scipy, 1e-6),
    Peer("surface Dice", "MONAI", "monai", of_volumes.surface_dice_monai, 1e-6),
    Peer("surface Dice", "SciPy distance transform", "scipy", of_volumes.surface_dice_scipy, 1e-6),
)
IMAGE_PEERS = (
    # MONAI works in float32: against float64, the next line, it is off by 1e-5 at 128³.
    Peer("MS-SSIM", "MONAI", "monai", of_volumes.ms_ssim_monai, 3e-5),
    Peer("MS-SSIM", "SciPy, float64", "scipy", of_volumes.ms_ssim_scipy, 1e-6),
    Peer("MS-SSIM", "torchmetrics", "torchmetrics", of_volumes.ms_ssim_torchmetrics, OTHER_VALUE),
)


def inputs(peer: Peer, size: tuple[int, ...]) -> Any:
    """What a peer is given at a size: `(n, d)` of features or `(side,)` of volumes."""
    if peer in FEATURE_PEERS:
        return peer_inputs.features(*size)
    return (peer_inputs.images if peer in IMAGE_PEERS else peer_inputs.segmentations)(*size)


def cases(ns: Sequence[int], sides: Sequence[int]) -> list[tuple[Peer, tuple[int, ...]]]:
    """Every comparison with its sizes."""
    of_features: list[tuple[int, ...]] = [(n, 2048) for n in ns]
    of_volumes: list[tuple[int, ...]] = [(side,) for side in sides]
    return [(peer, size) for size in of_features for peer in FEATURE_PEERS] + [
        (peer, size) for size in of_volumes for peer in (*IMAGE_PEERS, *LABEL_PEERS)
    ]


def named(size: tuple[int, ...]) -> str:
    """A size as the table shows it."""
    if len(size) == 1:
        return f"{size[0]}³"
    return ", ".join(f"{name} = {value}" for name, value in zip("ndm", size, strict=False))


# --- measuring ----------------------------------------------------------------------------------


class Seconds(NamedTuple):
    """What a call took: of all threads' processor time, and by the clock on the wall."""

    processor: float
    wall: float


class Row(NamedTuple):
    """One line of the table: medians over the rounds."""

    metric: str
    size: str
    peer: str
    ours: NDArray[np.float64]
    theirs: NDArray[np.float64]
    seconds_ours: Seconds
    seconds_theirs: Seconds

    @property
    def ratio(self) -> float:
        """How many times the peer's processor time is ours."""
        return self.seconds_theirs.processor / self.seconds_ours.processor

    @property
    def ratio_wall(self) -> float:
        return self.seconds_theirs.wall / self.seconds_ours.wall


def values(call: Call) -> NDArray[np.float64]:
    """What a call gives, as an array of one dimension; what libraries print is dropped."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        return np.atleast_1d(np.asarray(call(), dtype=np.float64))


def difference(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """The largest difference relative to the peer's value; inf where only one has a value."""
    if ours.shape != theirs.shape or (np.isnan(ours) != np.isnan(theirs)).any():
        return float("inf")
    both = ~np.isnan(theirs)
    if not both.any():
        return float("inf")
    # 0 against 0 is agreement.
    scale = np.where(theirs[both] == 0, 1.0, np.abs(theirs[both]))
    return float((np.abs(ours[both] - theirs[both]) / scale).max())


def measure(peer: Peer, size: tuple[int, ...], budget: float = 2.0) -> Row:
    """Ours and the peer's in turn, on as many cores as there are threads; medians of the rounds.

    The first call of each is dropped where it is short (imports, caches); a peer of more than a
    second gets three rounds in all, a quick one as many as fit into `budget` seconds, 5 to 31.
    """
    data = inputs(peer, size)
    calls = OURS[peer.metric](data), peer.prepare(data)
    with _pinned():
        first = [_timed(call) for call in calls]
        results = [result for result, _ in first]
        long = max(seconds.wall for _, seconds in first) > 1.0
        times: list[list[Seconds]] = [[seconds] if long else [] for _, seconds in first]
        total = 2 if long else int(np.clip(budget / sum(s.wall for _, s in first), 5, 31))
        for _ in range(total):
            for call, seconds in zip(calls, times, strict=True):
                seconds.append(_timed(call)[1])
    medians = [
        Seconds(*(median(column) for column in zip(*seconds, strict=True))) for seconds in times
    ]
    return Row(peer.metric, named(size), peer.name, *results, *medians)


def _timed(call: Call) -> tuple[NDArray[np.float64], Seconds]:
    processor, wall = time.process_time(), time.perf_counter()
    result = values(call)
    return result, Seconds(time.process_time() - processor, time.perf_counter() - wall)


def threads() -> int:
    """Threads of the linear algebra, from OMP_NUM_THREADS; 1 where it is not set."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


@contextmanager
def _pinned() -> Iterator[None]:
    """As many cores as `threads()`, whatever a peer starts: prdc asks for eight threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[: threads()]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# --- the table ----------------------------------------------------------------------------------


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="*", default=[144, 504], help="rows of features")
    parser.add_argument("--side", type=int, nargs="*", default=[64, 128], help="of volumes")
    parser.add_argument("--only", default="", help="metrics whose name holds this")
    arguments = parser.parse_args()
    if "OMP_NUM_THREADS" not in os.environ:
        parser.error("OMP_NUM_THREADS is not set; the table states how many threads everybody had.")
    missing: dict[str, str] = {}
    print("| times faster | metric | size | peer | ours, s | peer, s | ours | peer | difference |")
    print("| ---: | --- | --- | --- | ---: | ---: | --- | --- | ---: |")
    for peer, size in cases(arguments.n, arguments.side):
        if arguments.only.lower() not in peer.metric.lower():
            continue
        if peer.missing:
            missing[peer.name] = peer.missing
            continue
        try:
            print(line(measure(peer, size)), flush=True)
        except Exception as error:  # a peer that fails is a result, not the end of the table
            print(
                f"| – | {peer.metric} | {named(size)} | {peer.name} | | | | {error} | |", flush=True
            )
    print()
    print(environment())
    for name, reason in missing.items():
        print(f"Without {name}: {reason}.")


def line(row: Row) -> str:
    """One line of the table."""
    shown = [" / ".join(f"{value:.6g}" for value in side) for side in (row.ours, row.theirs)]
    cells = (
        f"{_times(row.ratio)} ({_times(row.ratio_wall)})",
        row.metric,
        row.size,
        row.peer,
        f"{row.seconds_ours.processor:.3g}",
        f"{row.seconds_theirs.processor:.3g}",
        *shown,
        f"{difference(row.ours, row.theirs):.1g}",
    )
    return f"| {' | '.join(cells)} |"


def _times(ratio: float) -> str:
    """Three digits without an exponent: 0.834, 38.9, 3550."""
    return f"{ratio:.3g}" if ratio < 999 else f"{float(f'{ratio:.3g}'):.0f}"


def environment() -> str:
    """Threads, processor and versions, in a sentence each."""
    packages = ("numpy", "scipy", "torch", "monai", "torchmetrics", "torch_fidelity", "pytorch_fid")
    versions = []
    for package in (*packages, "prdc", "scikit-learn"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return (
        f"Threads: {threads()}, on as many cores. Processor: {_processor()}. "
        f"Python {platform.python_version()}, {', '.join(versions)}."
    )


def _processor() -> str:
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for entry in lines:
            if entry.startswith("model name"):
                return entry.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

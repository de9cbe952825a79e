"""Which grids a cost is measured on, and what it is on a larger one by the law of `LAW`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

Grid = tuple[int, int, int]

SMALLEST_SIDE, SIDE_MULTIPLE = 32, 16  # of the reduced grids: every built-in network takes these
SHARES = (0.125, 0.1875, 0.25, 0.375, 0.5, 0.75)  # of the full grid's sides
LAW = (
    "Extrapolated: with V the voxels of a grid, time is a + FLOPs / rate and memory c + d V + "
    "attention's matrices. FLOPs are counted: those of convolutions grow as f + g V, those of "
    "attention and its matrices as h V + k V². All these constants are those of the two largest "
    "grids measured. From one grid, time goes with the FLOPs, and c is what is held between steps. "
    "From a batch of one volume, all but c goes with the batch."
)


@dataclass(frozen=True)
class Limits:
    """What one measurement may take."""

    seconds: float
    memory_mb: float
    gpu: bool = False  # whether the memory is a GPU's
    until: float = math.inf  # by time.monotonic(), after which nothing more is measured


@dataclass(frozen=True)
class Work:
    """What one step of a fit, or one volume, was measured to take at a grid."""

    grid: Grid
    seconds: float
    memory_mb: float  # at the peak, of the whole process, or on a GPU of its allocator
    resting_mb: float  # between steps: weights, optimisers, averages
    linear: float  # FLOPs of convolutions and the like
    quadratic: float  # FLOPs of attention
    matrices_mb: float  # attention's matrices that are held at once
    elapsed: float  # until all this was known, in s

    @property
    def voxels(self) -> int:
        return volume(self.grid)


def batched(work: Work, batch: int, per_volume: bool) -> Work:
    """What a batch takes of which one volume was measured: an upper bound.

    `per_volume`: whether time and FLOPs are those of a volume and not of the batch.
    """
    times = 1 if per_volume else batch
    return replace(
        work,
        seconds=work.seconds * times,
        memory_mb=work.resting_mb + (work.memory_mb - work.resting_mb) * batch,
        linear=work.linear * times,
        quadratic=work.quadratic * times,
        matrices_mb=work.matrices_mb * batch,
    )


def volume(grid: Grid) -> int:
    """Voxels of a grid."""
    a, b, c = grid
    return a * b * c


def shown(grid: Grid) -> str:
    """``64x64x64``."""
    return "x".join(map(str, grid))


def ladder(full: Grid) -> list[Grid]:
    """Smaller grids of about the same form, and the full one, by size.

    Sides are multiples of 16 and at least 32; a side that is smaller, or none, stays as it is.
    """
    grids = {tuple(_side(side, share) for side in full) for share in SHARES}
    smaller = [(a, b, c) for a, b, c in grids if a * b * c < volume(full)]
    return [*sorted(smaller, key=volume), full]


def _side(side: int, share: float) -> int:
    reduced = max(SMALLEST_SIDE, SIDE_MULTIPLE * round(side * share / SIDE_MULTIPLE))
    return side if side % SIDE_MULTIPLE else min(side, reduced)


def climb(
    grids: Sequence[Grid], attempt: Callable[[Grid], Work | str], limits: Limits
) -> tuple[list[Work], str]:
    """Measure the smallest grid, then the largest that can be expected to keep to the limits.

    Args:
        grids: by size, the full one last.
        attempt: gives what was measured at a grid, or why it could not be.
        limits: of one measurement.

    Returns:
        What was measured, by size, and why the full grid was not: "" where it was.
    """
    works: list[Work] = []
    left, reason = list(grids), ""
    while left:
        allowed = [g for g in left if not works or not _excess(works, g, limits)]
        if not allowed:
            reason = reason or f"{shown(left[-1])} {_excess(works, left[-1], limits)}"
            break
        # One grid alone tells little of the others: a second one, unless the full one is cheap.
        known = len(works) > 1 or bool(works and allowed[-1] == grids[-1])
        grid = allowed[-1] if known else allowed[0]
        found = attempt(grid)
        if isinstance(found, str):
            reason = f"{shown(grid)} {found}"
            left = [g for g in left if volume(g) < volume(grid)]
        else:
            works.append(found)
            left = [g for g in left if volume(g) > volume(grid)]
    return works, "" if works and works[-1].grid == grids[-1] else reason


def _excess(works: Sequence[Work], grid: Grid, limits: Limits) -> str:
    """Which limit a measurement at `grid` is expected to pass, in words."""
    seconds, memory_mb = extrapolate(works, volume(grid))
    elapsed = works[-1].elapsed * seconds / works[-1].seconds if works[-1].seconds else 0.0
    if memory_mb > limits.memory_mb:
        return f"needs about {memory_mb / 1024:.1f} GiB of the {limits.memory_mb / 1024:.1f} free"
    if elapsed > limits.seconds:
        return f"takes about {elapsed:.0f} s to measure"
    return ""


def extrapolate(works: Sequence[Work], voxels: int) -> tuple[float, float]:
    """Seconds and MB at a grid of so many voxels, by the law of `LAW`.

    Args:
        works: what was measured, by size; a grid of as many voxels is given as it was measured.
        voxels: of the grid asked for.
    """
    last = works[-1]
    if last.voxels == voxels:
        return last.seconds, last.memory_mb
    at = [work.voxels for work in works[-2:]]
    linear = _line(at, [work.linear for work in works[-2:]], voxels, whole=True)
    flops = linear + _square(at, [work.quadratic for work in works[-2:]], voxels)
    matrices_mb = _square(at, [work.matrices_mb for work in works[-2:]], voxels)

    counted = [work.linear + work.quadratic for work in works[-2:]]
    if not counted[-1]:  # work that torch does not see
        counted, flops = [float(v) for v in at], float(voxels)
    seconds = _line(counted, [work.seconds for work in works[-2:]], flops, whole=False)

    rest = [work.memory_mb - work.matrices_mb for work in works[-2:]]
    if len(works) == 1:
        held = min(last.resting_mb, rest[0])
        return seconds, held + (rest[0] - held) * voxels / last.voxels + matrices_mb
    return seconds, _line(at, rest, voxels, whole=True) + matrices_mb


def _line(x: Sequence[float], y: Sequence[float], at: float, whole: bool) -> float:
    """The line through two points, or the origin and one.

    Where it would fall, it is level if the values may be of the same size at any x (`whole`), and
    else goes through the origin: two measured times may differ by chance alone.
    """
    if len(x) > 1 and x[1] != x[0]:
        slope = (y[1] - y[0]) / (x[1] - x[0])
        if slope >= 0:
            return y[1] + slope * (at - x[1])
        if whole:
            return y[1]
    return y[-1] * at / x[-1]


def _square(x: Sequence[float], y: Sequence[float], at: float) -> float:
    """h x + k x² through two points, or k x² through one.

    Where k would be negative, as in fits on patches of one size, the line through the two.
    """
    if len(x) == 1:
        return y[0] * (at / x[0]) ** 2
    before, last = (b / a for a, b in zip(x, y, strict=True))
    if last < before:
        return _line(x, y, at, whole=True)
    return at * _line(x, [before, last], at, whole=True)

"""Diversity within a set of volumes: the mean MS-SSIM of its pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]

# Weights of the scales from fine to coarse of Wang et al. 2003; the Gaussian window and the
# constants (for a range of 1) of Wang et al. 2004.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2
RANGE_TOLERANCE = 1e-3


class Diversity(NamedTuple):
    """MS-SSIM within a set: 1 where all volumes are equal; the lower, the more they differ."""

    mean: float
    n_pairs: int
    std: float  # over the pairs, which share volumes: no error of the mean; nan for one pair
    n_scales: int


class _Scale(NamedTuple):
    """One volume at one resolution, with its local mean and variance."""

    image: Volume  # less the volume's mean, or float32 would lose the digits of small variances
    deviation: Volume  # the local mean of `image`
    mean: Volume  # that of the volume itself
    variance: Volume


def ms_ssim_diversity(volumes: NDArray[Any], *, max_pairs: int = 64, seed: int = 0) -> Diversity:
    """Mean multi-scale structural similarity of random pairs of a set (Wang et al. 2003).

    As in Odena et al. (arXiv 1610.09585), to be read against the same of real volumes: a value
    above theirs means less variety.

    The window keeps its 11 taps on every grid and the number of scales follows the shortest side:
    as many of the five, each half the resolution of the one before, as still hold one window (5
    from 176 voxels, 4 from 88, 3 from 44, 2 from 22, 1 from 11), with their weights divided by
    their sum. A smaller window would fit more scales, but then every scale would mean something
    else than in the literature. Values of different grids are in any case not to be compared.

    Args:
        volumes: ``(N, D, H, W)`` in [0, 1], N >= 2; a memory-mapped array is read pair by pair.
        max_pairs: pairs drawn, without repetition; all pairs where there are no more.
        seed: the same seed draws the same pairs.

    Raises:
        ValueError: not four axes, fewer than 2 volumes, a side of less than 11 voxels, no pairs
            asked for, or a volume that is not finite or leaves [0, 1].
    """
    if volumes.ndim != 4 or len(volumes) < 2:
        raise ValueError(f"Volumes have shape {volumes.shape}; expected (N, D, H, W), N >= 2.")
    if max_pairs < 1:
        raise ValueError(f"max_pairs is {max_pairs}; expected at least 1.")
    scales = n_scales(volumes.shape[1:])
    values = []
    first, held = -1, list[_Scale]()
    for i, j in _pairs(len(volumes), max_pairs, seed):
        if i != first:  # the pairs are sorted: one volume at a time is worth keeping
            first, held = i, _pyramid(_checked(volumes[i], i), scales)
        values.append(_similarity(held, _pyramid(_checked(volumes[j], j), scales)))
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Diversity(float(np.mean(values)), len(values), std, scales)


def ms_ssim(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Multi-scale structural similarity of two volumes ``(D, H, W)`` in [0, 1].

    Returns:
        At most 1, which equal volumes reach. A scale whose mean contrast term is negative counts as
        0, as in MONAI.

    Raises:
        ValueError: as `ms_ssim_diversity`, or different grids.
    """
    if x.ndim != 3 or x.shape != y.shape:
        raise ValueError(f"Volumes have shapes {x.shape} and {y.shape}; expected one (D, H, W).")
    scales = n_scales(x.shape)
    return _similarity(*(_pyramid(_checked(v, i), scales) for i, v in enumerate((x, y))))


def n_scales(shape: tuple[int, ...]) -> int:
    """How many of the five scales a grid ``(D, H, W)`` holds, see `ms_ssim_diversity`.

    Raises:
        ValueError: a side of less than 11 voxels.
    """
    side = min(shape)
    if side < WINDOW:
        raise ValueError(
            f"Volumes have the grid {tuple(shape)}; MS-SSIM needs at least {WINDOW} voxels a side."
        )
    return max(s for s in range(1, len(WEIGHTS) + 1) if side >> (s - 1) >= WINDOW)


def _similarity(x: list[_Scale], y: list[_Scale]) -> float:
    weights = np.array(WEIGHTS[: len(x)])
    terms = []
    for level, (a, b) in enumerate(zip(x, y, strict=True), start=1):
        covariance = _blurred(a.image * b.image) - a.deviation * b.deviation
        term = (2.0 * covariance + C2) / (a.variance + b.variance + C2)
        if level == len(x):  # luminance counts at the coarsest scale alone
            term *= (2.0 * a.mean * b.mean + C1) / (np.square(a.mean) + np.square(b.mean) + C1)
        terms.append(max(float(term.mean(dtype=np.float64)), 0.0))
    return float(np.prod(np.array(terms) ** (weights / weights.sum())))


def _pyramid(image: Volume, scales: int) -> list[_Scale]:
    centre = image.mean()
    image = image - centre
    levels = []
    for level in range(scales):
        if level:
            image = _along_axes(image, _halving)
        deviation = _blurred(image)
        variance = _blurred(image * image) - deviation * deviation
        levels.append(_Scale(image, deviation, deviation + centre, variance))
    return levels


def _blurred(volume: Volume) -> Volume:
    return _along_axes(volume, _window)


def _along_axes(volume: Volume, matrix: Callable[[int], Volume]) -> Volume:
    """Apply a linear map ``matrix(side) (out, side)`` along each axis.

    A banded matrix spends most of a product on zeros, and is still the fastest separable filter on
    a CPU up to some hundred voxels a side.
    """
    depth, height, width = volume.shape
    volume = np.matmul(matrix(height), volume @ matrix(width).T)
    flat = matrix(depth) @ volume.reshape(depth, -1)
    return flat.reshape(-1, *volume.shape[1:])


@cache
def _window(side: int) -> Volume:
    """Weighted means under the Gaussian window wherever it lies inside, ``(side - 10, side)``."""
    taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    out = side - WINDOW + 1
    matrix = np.zeros((out, side), dtype=np.float32)
    for offset, tap in enumerate(taps / taps.sum()):
        matrix[np.arange(out), np.arange(out) + offset] = tap
    return matrix


@cache
def _halving(side: int) -> Volume:
    """Means of neighbouring pairs, ``(side // 2, side)``; an odd last voxel is dropped."""
    out = np.arange(side // 2)
    matrix = np.zeros((len(out), side), dtype=np.float32)
    matrix[out, 2 * out] = matrix[out, 2 * out + 1] = 0.5
    return matrix


def _pairs(n: int, max_pairs: int, seed: int) -> list[tuple[int, int]]:
    """Distinct pairs i < j of n, sorted: all, or ``max_pairs`` of them at random."""
    total = n * (n - 1) // 2
    if total > max_pairs:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(total, max_pairs, replace=False))
    else:
        chosen = np.arange(total)
    # Pairs are numbered row by row of the upper triangle; row i begins at starts[i].
    starts = np.concatenate([[0], np.cumsum(np.arange(n - 1, 0, -1))])
    i = np.searchsorted(starts, chosen, side="right") - 1
    j = chosen - starts[i] + i + 1
    return list(zip(i.tolist(), j.tolist(), strict=True))


def _checked(volume: NDArray[Any], index: int) -> Volume:
    image = np.ascontiguousarray(volume, dtype=np.float32)
    low, high = float(image.min()), float(image.max())
    # A nan fails the comparison.
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        raise ValueError(
            f"Volume {index} has intensities from {low:g} to {high:g}; "
            "MS-SSIM takes finite values in [0, 1]."
        )
    return image

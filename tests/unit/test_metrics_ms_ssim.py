"""MS-SSIM against MONAI, a float64 version with SciPy's filters, and sets of known diversity."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics.regression import compute_ms_ssim
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter

from metrics.ms_ssim import WEIGHTS, ms_ssim, ms_ssim_diversity, n_scales

Array = NDArray[np.float64]


def smooth(seed: int, shape: tuple[int, int, int], low: float = 0.0) -> NDArray[np.float32]:
    values = gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    values = (values - values.min()) / np.ptp(values)
    return (low + (1 - low) * values).astype(np.float32)


def pair(shape: tuple[int, int, int], low: float = 0.0) -> tuple[Array, Array]:
    a, b = smooth(0, shape, low), smooth(1, shape, low)
    return a, 0.5 * a + 0.5 * b


def weights(scales: int) -> Array:
    chosen = np.array(WEIGHTS[:scales])
    return chosen / chosen.sum()


def with_scipy(x: Array, y: Array, scales: int) -> float:
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)

    def blur(volume: Array) -> Array:
        for axis in range(3):
            volume = correlate1d(volume, taps / taps.sum(), axis=axis)
        return volume[5:-5, 5:-5, 5:-5]

    def halve(volume: Array) -> Array:
        a, b, c = (side // 2 for side in volume.shape)
        return volume[: 2 * a, : 2 * b, : 2 * c].reshape(a, 2, b, 2, c, 2).mean(axis=(1, 3, 5))

    x, y, result = x.astype(np.float64), y.astype(np.float64), 1.0
    for scale, weight in enumerate(weights(scales)):
        if scale:
            x, y = halve(x), halve(y)
        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        term = (2 * cov + 9e-4) / (vx + vy + 9e-4)
        if scale == scales - 1:
            term = term * (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
        result *= term.mean() ** weight
    return float(result)


@pytest.mark.parametrize(
    ("shape", "scales", "low"),
    [
        ((12, 20, 16), 1, 0.0),
        ((32, 41, 33), 2, 0.0),
        ((64, 64, 64), 3, 0.0),
        ((45, 50, 47), 3, 0.9),
    ],
)
def test_equals_scipys_filters_in_double_precision(
    shape: tuple[int, int, int], scales: int, low: float
) -> None:
    a, b = pair(shape, low)
    assert ms_ssim(a, b) == pytest.approx(with_scipy(a, b, scales), abs=1e-6)


@pytest.mark.parametrize("side", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_equals_monai_and_is_faster(side: int) -> None:
    """MONAI sums 1331 products in float32, which costs it the fifth digit."""
    a, b = pair((side, side, side))
    tensors = [torch.from_numpy(v.astype(np.float32))[None, None] for v in (a, b)]

    def theirs() -> float:
        scale_weights = weights(n_scales(a.shape)).tolist()
        return float(compute_ms_ssim(*tensors, spatial_dims=3, weights=scale_weights))

    seconds = {}
    values = {}
    for name, run in (("monai", theirs), ("ours", lambda: ms_ssim(a, b))):
        start = time.perf_counter()
        values[name] = run()
        seconds[name] = time.perf_counter() - start
    assert values["ours"] == pytest.approx(values["monai"], abs=2e-5)
    assert seconds["ours"] < seconds["monai"]


def test_scales_follow_the_shortest_side() -> None:
    sides = [11, 21, 22, 32, 43, 44, 87, 88, 175, 176, 1000]
    assert [n_scales((s, s + 9, s)) for s in sides] == [1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5]
    with pytest.raises(ValueError, match=r"grid \(64, 10, 64\); MS-SSIM needs at least 11"):
        n_scales((64, 10, 64))


def test_equal_volumes_give_1_and_different_ones_less() -> None:
    one = smooth(2, (32, 32, 32))
    repeated = ms_ssim_diversity(np.stack([one] * 4))
    assert repeated == (1.0, 6, 0.0, 2)
    black = ms_ssim_diversity(np.zeros((3, 32, 32, 32)))
    assert black.mean == 1.0
    rng = np.random.default_rng(3)
    means = [
        ms_ssim_diversity(np.stack([one + a * (smooth(s, one.shape) - one) for s in range(5, 9)]))
        for a in (0.1, 0.3, 1.0)
    ]
    assert 1 > means[0].mean > means[1].mean > means[2].mean >= 0
    # A negative in place of a volume has negative contrast terms, which count as 0.
    assert ms_ssim_diversity(np.stack([one, 1 - one])).mean == 0.0
    assert 0 <= ms_ssim(rng.random(one.shape), one) < 0.5


def test_the_mean_is_over_distinct_pairs_drawn_with_the_seed(tmp_path: Path) -> None:
    volumes = np.stack([smooth(s, (16, 16, 16)) for s in range(7)])
    pairs = {(i, j): ms_ssim(volumes[i], volumes[j]) for i in range(7) for j in range(i + 1, 7)}
    every = ms_ssim_diversity(volumes)
    assert every.n_pairs == 21
    assert every.mean == pytest.approx(np.mean(list(pairs.values())), abs=1e-7)
    assert every.std == pytest.approx(np.std(list(pairs.values()), ddof=1), abs=1e-7)
    # As many pairs as there are less one: the mean is that of all but one, each counted once.
    drawn = ms_ssim_diversity(volumes, max_pairs=20, seed=3)
    left_out = sum(pairs.values()) - 20 * drawn.mean
    assert min(abs(left_out - value) for value in pairs.values()) < 1e-5
    some = [ms_ssim_diversity(volumes, max_pairs=5, seed=s).mean for s in (1, 1, 2)]
    assert some[0] == some[1] != some[2]
    assert np.isnan(ms_ssim_diversity(volumes, max_pairs=1).std)
    np.save(tmp_path / "images.npy", volumes.astype(np.float16))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert ms_ssim_diversity(mapped).mean == pytest.approx(every.mean, abs=1e-3)


def test_refuses() -> None:
    volumes = np.stack([smooth(s, (12, 12, 12)) for s in range(3)])
    with pytest.raises(ValueError, match=r"shape \(12, 12, 12\); expected \(N, D, H, W\), N >= 2"):
        ms_ssim_diversity(volumes[0])
    with pytest.raises(ValueError, match="N >= 2"):
        ms_ssim_diversity(volumes[:1])
    with pytest.raises(ValueError, match="max_pairs is 0"):
        ms_ssim_diversity(volumes, max_pairs=0)
    with pytest.raises(ValueError, match="at least 11 voxels"):
        ms_ssim_diversity(volumes[:, :10])
    with pytest.raises(ValueError, match="expected one"):
        ms_ssim(volumes[0], volumes[0][:11])
    volumes[2, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="Volume 2 has intensities from nan"):
        ms_ssim_diversity(volumes)
    volumes[2] *= 0
    volumes[1] += 1
    with pytest.raises(ValueError, match="Volume 1 has intensities from 1 to 2"):
        ms_ssim_diversity(np.nan_to_num(volumes))


def test_pairs_of_many_volumes_take_no_memory_of_all_pairs() -> None:
    volumes = np.broadcast_to(smooth(0, (11, 11, 11)), (20_000, 11, 11, 11))
    tracemalloc.start()
    found = ms_ssim_diversity(volumes, max_pairs=3)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.mean == pytest.approx(1)
    assert most < 8e6  # numbers of all pairs would be 1.6 GB

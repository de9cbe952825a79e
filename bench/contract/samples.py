"""What is asked of the volumes that a generator yields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.contract.requirement import Broken
from bench.scaling import Grid
from bench.volumes import Sample

ROUNDING = 1e-5
"""Batches of another size round differently."""


def check_count(samples: Sequence[Sample], asked: int) -> None:
    """One Sample for each index."""
    if len(samples) != asked:
        more = "more than " if len(samples) > asked else ""
        count = min(len(samples), asked) if more else len(samples)
        raise Broken(f"{asked} volumes were asked for and {more}{count} came")
    for sample in samples:
        if not isinstance(sample, Sample):
            raise Broken(f"a {type(sample).__name__} came instead of a Sample")


def check_images(samples: Sequence[Sample], grid: Grid) -> None:
    """Arrays (D, H, W) of floating-point numbers."""
    for i, sample in enumerate(samples):
        image = sample.image
        if not isinstance(image, np.ndarray):
            raise Broken(f"the image of volume {i} is a {type(image).__name__}, no NumPy array")
        if image.shape != grid:
            raise Broken(f"the image of volume {i} has shape {image.shape}, the grid is {grid}")
        if not np.issubdtype(image.dtype, np.floating):
            raise Broken(f"the image of volume {i} is of {image.dtype}, no floating-point type")


def check_range(samples: Sequence[Sample]) -> None:
    """Finite values in [0, 1]."""
    for i, sample in enumerate(samples):
        if not np.isfinite(sample.image).all():
            raise Broken(f"the image of volume {i} has values that are not finite")
        low, high = float(sample.image.min()), float(sample.image.max())
        if low < 0 or high > 1:
            raise Broken(f"the image of volume {i} has values in [{low:.4g}, {high:.4g}]")


def check_labels(
    samples: Sequence[Sample], source: str, grid: Grid, label_names: Mapping[int, str]
) -> None:
    """Label maps (D, H, W) uint8 of known ids where they are declared, and none elsewhere."""
    for i, sample in enumerate(samples):
        label = sample.label
        if source == "none":
            if label is not None:
                raise Broken(f'volume {i} has a label, but labels is "none"')
            continue
        if label is None:
            raise Broken(f"volume {i} has no label, but labels is {source!r}")
        if not isinstance(label, np.ndarray) or label.dtype != np.uint8:
            kind = getattr(label, "dtype", type(label).__name__)
            raise Broken(f"the label of volume {i} is of {kind}")
        if label.shape != grid:
            raise Broken(f"the label of volume {i} has shape {label.shape}, the grid is {grid}")
        if unknown := sorted(set(np.unique(label).tolist()) - {0, *label_names}):
            raise Broken(f"the label of volume {i} has the unknown ids {unknown}")


def check_same(a: Sample, b: Sample, what: str, tolerance: float = ROUNDING) -> None:
    """Broken unless two draws of one volume are equal; images up to `tolerance`."""
    apart = float(np.abs(np.subtract(a.image, b.image, dtype=np.float64)).max())
    if not apart <= tolerance:
        raise Broken(f"{what}: the images differ by up to {apart:.3g}")
    if a.label is not None and b.label is not None and not np.array_equal(a.label, b.label):
        raise Broken(f"{what}: the labels differ in {np.sum(a.label != b.label)} voxels")

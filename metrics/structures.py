"""Sizes of structures: do synthetic label volumes hold as much, and as many parts, as real ones?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.masks import bounding_box, check_label_map, check_labels, checked_spacing, components


class Sizes(NamedTuple):
    """Sizes of structures: arrays ``(labels,)`` of one volume or ``(n, labels)`` of n volumes."""

    volume_ml: NDArray[np.float64]
    """ml; 0 where the volume lacks the structure."""
    components: NDArray[np.int64]
    """Parts whose voxels share no face, edge or corner with one another; 0 where it is lacking."""

    @property
    def absent(self) -> NDArray[np.float64]:
        """Share of the volumes that lack each structure, ``(labels,)``."""
        lacking = np.atleast_2d(self.components) == 0
        return np.asarray(lacking.mean(axis=0), dtype=np.float64)


class Comparison(NamedTuple):
    """Two-sample tests of synthetic against real volumes, each ``(labels,)``."""

    volume_ks: NDArray[np.float64]
    """Kolmogorov-Smirnov statistic of the volumes in ml, in [0, 1]."""
    volume_p: NDArray[np.float64]
    """Its p-value, adjusted by Holm over the structures."""
    components_ks: NDArray[np.float64]
    components_p: NDArray[np.float64]


def structure_sizes(label_map: NDArray[Any], labels: Sequence[int], spacing: ArrayLike) -> Sizes:
    """Volume and number of components of every structure of one label map.

    Args:
        label_map: ``(D, H, W)`` integer labels; each voxel 0 or one of `labels`.
        labels: the structures, without the background.
        spacing: voxel size in mm along each axis.

    Returns:
        Sizes, ``(len(labels),)`` each.

    Raises:
        ValueError: labels that are not integers, no voxels, voxels of another label, no labels or
            repeated ones, a spacing that is no length.
    """
    check_labels(labels)
    check_label_map(label_map, labels, "label map")
    voxel_ml = float(np.prod(checked_spacing(spacing, label_map.ndim))) / 1000.0
    masks = [label_map == label for label in labels]
    return Sizes(
        np.array([np.count_nonzero(mask) * voxel_ml for mask in masks], dtype=np.float64),
        np.array([components(mask[bounding_box(mask)])[1] for mask in masks], dtype=np.int64),
    )


def sizes_of_all(
    label_maps: Iterable[NDArray[Any]], labels: Sequence[int], spacings: Iterable[ArrayLike]
) -> Sizes:
    """`structure_sizes` of several label maps, read one after another.

    Args:
        label_maps: n label maps, or a (memory-mapped) array ``(n, D, H, W)``.
        labels: the structures, without the background.
        spacings: voxel size of each map in mm.

    Returns:
        Sizes, ``(n, len(labels))`` each.

    Raises:
        ValueError: as `structure_sizes`; also no label maps, or not one spacing for each.
    """
    each = []
    for i, (label_map, spacing) in enumerate(zip_longest(label_maps, spacings)):
        if label_map is None or spacing is None:
            missing = "label map" if label_map is None else "spacing"
            raise ValueError(f"Volume {i} has no {missing}; give one spacing for each label map.")
        each.append(structure_sizes(label_map, labels, spacing))
    if not each:
        raise ValueError("There are no label maps to measure; give at least one.")
    return Sizes(np.stack([s.volume_ml for s in each]), np.stack([s.components for s in each]))


def compare_sizes(synthetic: Sizes, real: Sizes) -> Comparison:
    """Two-sample Kolmogorov-Smirnov tests of each structure's volume and number of components.

    A volume that lacks the structure counts with 0 ml and 0 components: lacking it too often is a
    difference. Numbers of components tie, which makes their test conservative. The p-values of
    volumes and those of components are two families; Holm's adjustment runs over the structures.

    Args:
        synthetic: sizes ``(n, labels)`` of at least 2 synthetic volumes.
        real: sizes ``(m, labels)`` of at least 2 real volumes.

    Returns:
        Statistics and adjusted p-values.

    Raises:
        ValueError: fewer than 2 volumes, different numbers of structures, sizes that are not
            finite.
    """
    from metrics.statistics import holm

    volume, volume_p = _tests(synthetic.volume_ml, real.volume_ml)
    count, count_p = _tests(synthetic.components, real.components)
    return Comparison(volume, holm(volume_p), count, holm(count_p))


def _tests(
    synthetic: NDArray[Any], real: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Statistic and p-value of each column."""
    from scipy.stats import ks_2samp

    for name, sizes in (("synthetic", synthetic), ("real", real)):
        if sizes.ndim != 2 or len(sizes) < 2:
            raise ValueError(
                f"The {name} sizes have shape {sizes.shape}; expected (volumes, structures) of at "
                "least 2 volumes."
            )
        if not np.isfinite(sizes).all():
            raise ValueError(f"The {name} sizes are not all finite; measure the volumes again.")
    if synthetic.shape[1] != real.shape[1]:
        raise ValueError(
            f"The synthetic sizes are of {synthetic.shape[1]} structures and the real ones of "
            f"{real.shape[1]}; measure both with the same labels."
        )
    results = [ks_2samp(s, r) for s, r in zip(synthetic.T, real.T, strict=True)]
    return (
        np.array([float(result.statistic) for result in results]),
        np.array([float(result.pvalue) for result in results]),
    )

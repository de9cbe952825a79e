"""What a run refuses in a case: the same checks for `bench run` and for `bench data check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.datasets.scan import Fault, Scan, apart

# Image and label must lie on one another to this fraction of a voxel.
AFFINE_TOLERANCE = 0.1


def image_faults(image: Scan) -> Iterator[Fault]:
    """Voxels that are not finite; one value everywhere."""
    finite = np.isfinite(image.voxels)
    if not finite.all():
        count = int(finite.size - np.count_nonzero(finite))
        yield Fault(
            "intensities",
            f"{image.path} has {count} voxels that are not finite (NaN, infinite or beyond "
            "float32); replace them.",
        )
    elif image.voxels.min() == image.voxels.max():
        yield Fault(
            "intensities",
            f"{image.path} has the value {image.voxels.min():g} everywhere; remove the case.",
        )


def pair_faults(image: Scan, label: Scan) -> Iterator[Fault]:
    """Image and label on different grids, or in different places."""
    if image.voxels.shape != label.voxels.shape:
        yield Fault(
            "geometry",
            f"{label.path} has shape {label.voxels.shape}, but its image {image.path} has "
            f"{image.voxels.shape}; put both on one grid.",
        )
        return
    millimetres, voxels = apart(image.voxels.shape, image.affine, label.affine)
    if voxels > AFFINE_TOLERANCE:
        yield Fault(
            "geometry",
            f"{label.path} lies up to {millimetres:.3g} mm away from its image {image.path} (their "
            f"affines are {label.affine[:3].tolist()} and {image.affine[:3].tolist()}); correct "
            "the wrong header.",
        )


def label_faults(
    label: Scan,
    declared: Mapping[int, str],
    merge: NDArray[np.uint8],
    kept: Mapping[int, str],
    listing: Path | str,
) -> Iterator[Fault]:
    """Values that nobody declared; nothing but background.

    Args:
        label: voxels uint8.
        declared: label id -> name, as the data set or the configuration has them.
        merge: (256,) look-up table to the ids that are kept.
        kept: label id -> name after merging.
        listing: where cases and labels are declared, for the sentence.
    """
    found = np.flatnonzero(np.bincount(label.voxels.ravel(), minlength=256))
    unknown = sorted(set(found.tolist()) - {0} - set(declared))
    if unknown:
        yield Fault(
            "labels",
            f"{label.path} has the label values {unknown}, which are not declared "
            f"({dict(declared)}); name them in data.labels or in {listing}.",
        )
    elif not merge[found].any():
        yield Fault(
            "labels",
            f"{label.path} is background everywhere (labels kept: {dict(kept)}); remove the case "
            f"from {listing}.",
        )

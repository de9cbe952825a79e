"""Small Decathlon folders for the tests of data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

LABELS = {"0": "background", "1": "big", "2": "small"}


def ellipsoids(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A label map: a large ellipsoid (1) with a smaller, off-centre one (2) inside."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    label = (sum((a / 0.7) ** 2 for a in axes) < 1).astype(np.uint8)
    centre = (0.25, -0.1, 0.15)
    label[sum(((a - c) / 0.3) ** 2 for a, c in zip(axes, centre, strict=True)) < 1] = 2
    return label


def case(
    seed: int, shape: tuple[int, int, int] = (30, 36, 24)
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Image (noise over the label's contrast) and label."""
    label = ellipsoids(shape)
    noise = np.random.default_rng(seed).normal(0, 10, shape)
    return (200 + 100.0 * label + noise).astype(np.float32), label


def write_folder(
    folder: Path,
    n: int = 5,
    affine: NDArray[Any] | None = None,
    shape: tuple[int, int, int] = (30, 36, 24),
) -> Path:
    """`n` cases named case_000, ... with one affine (1.5 x 1 x 2 mm, RAS by default)."""
    matrix = np.diag([1.5, 1.0, 2.0, 1.0]) if affine is None else affine
    entries = []
    for i in range(n):
        image, label = case(i, shape)
        entry = {
            "image": f"./imagesTr/case_{i:03d}.nii.gz",
            "label": f"./labelsTr/case_{i:03d}.nii.gz",
        }
        save(folder / entry["image"], image, matrix)
        save(folder / entry["label"], label, matrix)
        entries.append(entry)
    edit(folder, {"name": "ellipsoids", "labels": LABELS, "training": entries})
    return folder


def save(path: Path, voxels: NDArray[Any], affine: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def edit(folder: Path, changes: dict[str, Any]) -> None:
    """Change keys of dataset.json; a value of None removes the key."""
    path = folder / "dataset.json"
    meta = json.loads(path.read_text()) if path.is_file() else {}
    meta.update(changes)
    path.write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))

"""NIfTI files: read one image or label map with its faults named, write one with its affine."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bench.datasets.scan import Scan
from bench.errors import InputError

SUFFIXES = (".nii.gz", ".nii")
_LABEL_TOLERANCE = 1e-3  # of float labels from whole numbers, e.g. after a resampling
_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    MemoryError,  # a header that declares more voxels than there is room for
    zlib.error,
)


def read_image(path: Path) -> Scan:
    """Image (X, Y, Z) as float32; its values are not checked.

    Raises:
        InputError: the file is damaged, not 3D, or without voxel size.
    """
    scan = _read(path)
    return replace(scan, voxels=np.asarray(scan.voxels, dtype=np.float32))


def read_label(path: Path) -> Scan:
    """Label map (X, Y, Z) as uint8.

    Raises:
        InputError: the file is damaged, not 3D, without voxel size, or its values are not whole
            numbers (to 0.001) of 0 to 255.
    """
    scan = _read(path)
    return replace(scan, voxels=whole_labels(scan.voxels, path))


def whole_labels(voxels: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Label values as uint8: rounded, never truncated; InputError for what is no label id."""
    if voxels.dtype == np.uint8:
        return voxels
    rounded = np.rint(voxels)
    # NaN fails this comparison as well.
    wrong = ~(np.abs(voxels - rounded) <= _LABEL_TOLERANCE) | (rounded < 0) | (rounded > 255)
    if wrong.any():
        values = np.unique(voxels[wrong])[:5].tolist()
        raise InputError(
            f"{path} has label values such as {values}, expected whole numbers of 0 to 255; "
            "store the labels as integers."
        )
    labels: NDArray[np.uint8] = rounded.astype(np.uint8)
    return labels


def write_volume(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write voxels (X, Y, Z) with `affine` to RAS+ mm as both sform and qform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    # Some readers prefer the qform; a sheared affine fits the sform alone.
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    nib.save(image, path)


def _read(path: Path) -> Scan:
    try:
        file = nib.load(path)
        voxels = np.asanyarray(file.dataobj)
        affine = np.asarray(file.affine, dtype=np.float64)
        zooms = _stored_zooms(path, type(file.header))
        if voxels.dtype.kind not in "iuf":
            raise TypeError(f"voxels of type {file.get_data_dtype()}")
    except _UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}); fetch the file again."
        ) from error
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3 or min(voxels.shape) < 2:
        raise InputError(
            f"{path} has shape {voxels.shape}, expected three axes of at least 2 voxels; store one "
            "volume a file."
        )
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and min(*zooms, *sizes) > 0 and _invertible(affine)):
        raise InputError(
            f"{path} has voxel sizes {zooms} mm and affine "
            f"{affine[:3].tolist()}, which give no place to its voxels; correct its header."
        )
    return Scan(voxels, affine, path, _forms(file.header))


def _forms(header: Any) -> dict[str, NDArray[np.float64]]:
    """The affines that a NIfTI header declares, "sform" and "qform", by name."""
    forms = {}
    for name, get in (("sform", header.get_sform), ("qform", header.get_qform)):
        try:
            affine, code = get(coded=True)
        except (ValueError, np.linalg.LinAlgError):  # a quaternion that is none
            continue
        if code and affine is not None:
            forms[name] = np.asarray(affine, dtype=np.float64)
    return forms


def _stored_zooms(path: Path, header: Any) -> list[float]:
    # As stored: nibabel's own reading replaces a voxel size of 0 by 1 mm.
    with ImageOpener(path) as stream:
        stored = header.from_fileobj(stream, check=False)
    return [abs(float(size)) for size in stored["pixdim"][1:4]]


def _invertible(affine: NDArray[np.float64]) -> bool:
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(abs(np.linalg.det(directions)) > 1e-3)

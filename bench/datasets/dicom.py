"""DICOM: a folder's series as one scan, and the segments of a DICOM-SEG object on its grid.

Geometry is highdicom's (Bridge et al., Journal of Digital Imaging 35 (2022) 1719), pixels are
pydicom's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.datasets.faults import AFFINE_TOLERANCE
from bench.datasets.layout import natural
from bench.datasets.scan import Scan, apart
from bench.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

# DICOM's axes grow to the left, posterior and superior, ours to the right, anterior and superior.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_IRREGULAR = 0.1
"""Slices may lie this fraction of their distance away from where they should."""
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of segmentations: as masks, and as a label map."""
_HEADER = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "AcquisitionNumber")
_NEEDED = (
    "DICOM needs the packages pydicom and highdicom; give pip install 'voxelbench[dicom]' in the "
    "environment of this command."
)


def require_dicom() -> None:
    """InputError if the packages are not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise InputError(_NEEDED) from error


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files right in `folder`, image_2 before image_10; other files are left out."""
    require_dicom()
    from pydicom.misc import is_dicom

    return [
        path
        for path in sorted(folder.iterdir(), key=natural)
        if path.is_file() and path.name != "DICOMDIR" and is_dicom(path)
    ]


def read_series(folder: Path, files: Sequence[Path]) -> Scan:
    """The slices in `files` as one scan (slice, row, column) float32, ordered by their positions.

    Values are rescaled as the files say (Hounsfield units of CT). The distance of slices is that
    of their positions, never SliceThickness.

    Raises:
        InputError: a file is damaged or has no place, slices are missing, doubled, tilted against
            one another or of several sizes.
    """
    slices = [_read_slice(path) for path in files]
    if len(slices) < 2:
        raise InputError(
            f"{folder} has {len(slices)} DICOM slices, expected a series of at least 2; give the "
            "folder that holds the files themselves."
        )
    _check_alike(folder, slices, files)
    order, distance = _stacked(folder, slices)
    first = slices[order[0]]
    voxels = np.stack([_pixels(slices[i], files[i]) for i in order])
    affine = _LPS_TO_RAS @ _geometry(first, len(order), distance)
    return Scan(voxels, affine, folder, {"DICOM": affine}, tuple(files[i] for i in order))


def find_segmentation(folder: Path) -> tuple[Path, list[Path]]:
    """The one DICOM-SEG object anywhere below `folder`, and the files of the image that it is of.

    Of several series, and of several phases in one, that is meant whose instances it references;
    slices that it does not reference, because nothing is segmented there, are of the image too.

    Raises:
        InputError: there is none or there are several, or no image that it references is there.
    """
    require_dicom()
    import highdicom

    headers = dict(_headers(folder))
    found = [p for p, h in headers.items() if h.SOPClassUID in _SEGMENTATIONS]
    if len(found) != 1:
        raise InputError(
            f"{folder} has {len(found)} DICOM-SEG objects {sorted(p.name for p in found)}, "
            "expected one; fetch it, or leave one."
        )
    with _readable(f"{found[0]} cannot be read"):
        referenced = {uid for *_, uid in highdicom.seg.segread(found[0]).get_source_image_uids()}
    phases = {_phase(h) for h in headers.values() if h.SOPInstanceUID in referenced}
    if not phases:
        raise InputError(
            f"{folder} has none of the {len(referenced)} images that {found[0]} segments; fetch "
            "their series."
        )
    return found[0], [p for p, h in headers.items() if _phase(h) in phases]


def _phase(header: Dataset) -> tuple[str, str]:
    return str(header.get("SeriesInstanceUID")), str(header.get("AcquisitionNumber"))


def read_segments(
    path: Path, names: Mapping[str, str], required: Sequence[str], image: Scan
) -> Scan:
    """The segments of a DICOM-SEG object as one label map on the grid of `image`.

    Args:
        path: the object.
        names: label name -> regular expression that a SegmentLabel matches as a whole; they get
            the ids 1, 2, ... and are painted in that order, later ones over earlier ones.
        required: names that must have a segment.
        image: as `read_series` gives it. Frames that the object leaves out are empty.

    Raises:
        InputError: the object is damaged, lies on another grid, or has no segment of a required
            name.
    """
    import highdicom

    with _readable(f"{path} cannot be brought to the grid of its image"):
        seg = highdicom.seg.segread(path)
        labels = {n: str(seg.get_segment_description(n).SegmentLabel) for n in seg.segment_numbers}
        result = np.zeros(image.voxels.shape, dtype=np.uint8)
        for value, (name, rule) in enumerate(names.items(), start=1):
            numbers = [n for n, label in labels.items() if re.fullmatch(rule, label)]
            if not numbers and name in required:
                raise InputError(
                    f"{path} has no segment for {name!r}: its labels are "
                    f"{sorted(labels.values())}; mend segments, or leave the case out with match."
                )
            for number in numbers:
                result[_segment(seg, number, image)] = value
    return Scan(result, image.affine, path, image.forms)


def _segment(seg: Any, number: int, image: Scan) -> NDArray[np.bool_]:
    """One segment on the image's grid: turned, cropped and padded, never resampled."""
    from highdicom import VolumeGeometry

    grid = VolumeGeometry(_LPS_TO_RAS @ image.affine, image.voxels.shape, "PATIENT")
    stack = seg.get_volume(segment_numbers=[number], rtol=_IRREGULAR)
    segment = stack.get_channel(ReferencedSegmentNumber=number)
    placed = segment.match_geometry(grid, tol=0.02)
    # It leaves what reaches beyond the last slice, row or column of the grid.
    placed = placed[tuple(slice(n) for n in image.voxels.shape)]
    millimetres, voxels = apart(image.voxels.shape, grid.affine, placed.affine)
    if voxels > AFFINE_TOLERANCE:
        raise ValueError(f"it lies up to {millimetres:.3g} mm away")
    mask: NDArray[np.bool_] = placed.array > 0.5
    outside = np.count_nonzero(segment.array > 0.5) - np.count_nonzero(mask)
    if outside:
        raise ValueError(f"{outside} voxels of segment {number} lie beyond it")
    return mask


def _read_slice(path: Path) -> Dataset:
    from pydicom import dcmread

    with _readable(f"{path} cannot be read"):
        data = dcmread(path)
        missing = [name for name in _PLACE if data.get(name) is None]
        if missing:
            raise ValueError(f"it has no {', '.join(missing)}")
        return data


def _pixels(data: Dataset, path: Path) -> NDArray[np.float32]:
    from pydicom.pixels.processing import apply_rescale

    with _readable(f"The pixels of {path} cannot be read"):
        pixels = data.pixel_array
        if pixels.ndim != 2:
            raise ValueError(f"they have the shape {pixels.shape}, expected rows and columns")
        return np.asarray(apply_rescale(pixels, data), dtype=np.float32)


def _check_alike(folder: Path, slices: Sequence[Dataset], files: Sequence[Path]) -> None:
    """InputError unless all slices share size, voxel size and orientation."""
    first = slices[0]
    for data, path in zip(slices, files, strict=True):
        for name in _PLACE[1:]:
            one, other = (np.atleast_1d(np.asarray(d[name].value, float)) for d in (first, data))
            if not np.allclose(one, other, atol=1e-3):
                raise InputError(
                    f"{folder} mixes slices: {name} is {one.tolist()} in {files[0].name} and "
                    f"{other.tolist()} in {path.name}; keep one series in a folder."
                )


def _stacked(folder: Path, slices: Sequence[Dataset]) -> tuple[list[int], float]:
    """The order of the slices along their normal, and their distance in mm."""
    from highdicom.spatial import get_volume_positions

    positions = [[float(x) for x in data.ImagePositionPatient] for data in slices]
    orientation = [float(x) for x in slices[0].ImageOrientationPatient]
    distance, index = get_volume_positions(positions, orientation, rtol=_IRREGULAR)
    if distance is None or index is None:
        along = np.sort(np.array(positions) @ np.cross(orientation[:3], orientation[3:]))
        steps = np.diff(along)
        raise InputError(
            f"{folder} is no regular stack: its {len(slices)} slices lie {steps.min():.4g} to "
            f"{steps.max():.4g} mm apart, the largest step at {along[steps.argmax()]:.4g} mm; "
            "fetch missing slices, keep one phase in a folder, or resample a tilted series."
        )
    return np.argsort(index).tolist(), float(distance)


def _geometry(first: Dataset, count: int, distance: float) -> NDArray[np.float64]:
    """(4, 4): index of slice, row and column to DICOM's millimetres."""
    from highdicom import VolumeGeometry

    geometry = VolumeGeometry.from_attributes(
        image_position=first.ImagePositionPatient,
        image_orientation=first.ImageOrientationPatient,
        rows=first.Rows,
        columns=first.Columns,
        pixel_spacing=first.PixelSpacing,
        spacing_between_slices=distance,
        number_of_frames=count,
        coordinate_system="PATIENT",
    )
    affine: NDArray[np.float64] = geometry.affine
    return affine


def _headers(folder: Path) -> Iterator[tuple[Path, Dataset]]:
    """Every DICOM file anywhere below `folder`, and what identifies it."""
    from pydicom import dcmread

    for place in sorted({folder, *(p for p in folder.rglob("*") if p.is_dir())}):
        for path in dicom_files(place):
            with _readable(f"{path} cannot be read"):
                yield path, dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER))


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """An error of the readers becomes an InputError that begins with `what`."""
    from pydicom.errors import InvalidDicomError

    try:
        yield
    except InputError:
        raise
    except (
        *(AttributeError, EOFError, InvalidDicomError, KeyError, NotImplementedError),
        *(OSError, RuntimeError, TypeError, ValueError),
    ) as error:
        raise InputError(
            f"{what} ({type(error).__name__}: {error}); fetch the file again. Compressed pixels "
            "may need pip install 'pylibjpeg[all]'."
        ) from error

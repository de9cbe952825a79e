"""Small DICOM series and DICOM-SEG objects for the tests of data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
STUDY, FRAME, SERIES = (generate_uid() for _ in range(3))


def write_series(
    folder: Path,
    voxels: NDArray[np.int16],
    names: Sequence[str] | None = None,
    *,
    step: float = 2.0,
    spacing: tuple[float, float] = (0.8, 0.5),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    intercept: float = 0.0,
    slope: float = 1.0,
    series: str = SERIES,
    acquisition: int = 1,
) -> list[Path]:
    """Write slices (slice, row, column) whose k-th lies k steps along row x column from origin.

    Args:
        step: mm from slice to slice; SliceThickness says something else on purpose.
        spacing: mm from row to row and from column to column.
        names: of the files, in the order of the slices; image_0, image_1, ... by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    paths = []
    for k, pixels in enumerate(voxels):
        data = _header(series, acquisition)
        data.InstanceNumber = k + 1
        data.ImageOrientationPatient = np.round(orientation, 9).tolist()
        data.ImagePositionPatient = (np.array(origin) + k * step * normal).round(6).tolist()
        data.PixelSpacing = list(spacing)
        data.SliceThickness = 3.2
        data.Rows, data.Columns = pixels.shape
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 1, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.RescaleIntercept, data.RescaleSlope = intercept, slope
        data.PixelData = pixels.astype("<i2").tobytes()
        path = folder / (names[k] if names else f"image_{k}")
        data.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _header(series: str, acquisition: int) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.Modality = "CT"
    data.StudyInstanceUID, data.SeriesInstanceUID = STUDY, series
    data.FrameOfReferenceUID = FRAME
    data.AcquisitionNumber = acquisition
    for name in ("PatientID", "PatientName", "StudyID", "AccessionNumber"):
        setattr(data, name, "x^")
    for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        setattr(data, name, "")
    data.ReferringPhysicianName = ""
    return data


def write_segmentation(
    path: Path,
    images: Sequence[Path],
    segments: Mapping[str, NDArray[np.bool_]],
) -> Path:
    """Write masks (slice, row, column) of `images` as a DICOM-SEG object without empty frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(segments, start=1)
    ]
    highdicom.seg.Segmentation(
        source_images=[dcmread(image) for image in images],
        pixel_array=np.stack(list(segments.values()), axis=-1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    ).save_as(path)
    return path

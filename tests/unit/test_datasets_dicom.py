"""DICOM series and DICOM-SEG objects: geometry, order, values, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_folders import AXIAL, write_segmentation, write_series
from pydicom import dcmread
from pydicom.uid import generate_uid

from bench.datasets.dicom import dicom_files, find_segmentation, read_segments, read_series
from bench.datasets.scan import Scan
from bench.errors import InputError

SHAPE = (11, 8, 6)  # 11 slices: image_10 sorts before image_2
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
TILTED = (np.cos(0.3), np.sin(0.3), 0.0, -np.sin(0.3), np.cos(0.3), 0.0)


def voxels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 500, SHAPE, dtype=np.int16)


def read(folder: Path) -> Scan:
    return read_series(folder, dicom_files(folder))


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image = nib.as_closest_canonical(nib.Nifti1Image(array.astype(np.float32), affine))
    return image.get_fdata(), image.affine


def written(orientation: tuple[float, ...], origin: tuple[float, ...]) -> np.ndarray:
    """The affine of (slice, row, column) to RAS by the definition of the DICOM fields (C.7.6.2)."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = 2.0 * np.cross(row, column), 0.8 * column, 0.5 * row
    lps[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, TILTED])
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_voxel_lies_where_its_slice_says(
    tmp_path: Path, orientation: tuple[float, ...], shuffled: bool
) -> None:
    origin = (-30.0, 12.5, 7.0)
    order = np.random.default_rng(1).permutation(SHAPE[0]) if shuffled else np.arange(SHAPE[0])
    names = [f"image_{k}" for k in order]
    write_series(tmp_path, voxels(), names, orientation=orientation, origin=origin)
    scan = read(tmp_path)
    image, affine = canonical(scan.voxels, scan.affine)
    expected, place = canonical(voxels(), written(orientation, origin))
    np.testing.assert_allclose(affine, place, atol=1e-4)
    np.testing.assert_array_equal(image, expected)


def test_values_are_rescaled_and_the_distance_is_that_of_the_positions(tmp_path: Path) -> None:
    write_series(tmp_path, voxels(), intercept=-1000, slope=2, step=1.5)
    scan = read(tmp_path)
    assert sorted(scan.spacing.tolist()) == pytest.approx([0.5, 0.8, 1.5])
    assert scan.voxels.min() == voxels().min() * 2 - 1000


@pytest.mark.slow  # for the import of monai
def test_monai_reads_the_series_at_the_same_place(tmp_path: Path) -> None:
    from monai.data import PydicomReader

    write_series(tmp_path, voxels(), orientation=TILTED, origin=(-30.0, 12.5, 7.0))
    reader = PydicomReader()
    array, meta = reader.get_data(reader.read(tmp_path))
    theirs = canonical(array, meta["original_affine"])
    scan = read(tmp_path)
    ours = canonical(scan.voxels, scan.affine)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-4)
    np.testing.assert_array_equal(ours[0], theirs[0])


def change(name: str, value: object, which: str = "image_3") -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        data = dcmread(folder / which)
        setattr(data, name, value)
        data.save_as(folder / which)

    return changed


def cut(folder: Path) -> None:
    path = folder / "image_3"
    path.write_bytes(path.read_bytes()[:-20])


BROKEN = {
    "missing slice": (
        lambda f: (f / "image_4").unlink(),
        r"its 10 slices lie 2 to 4 mm apart, the largest step at 6 mm",
    ),
    "two phases": (
        lambda f: write_series(f, voxels(1), [f"b{k}" for k in range(11)]),
        "its 22 slices lie 0 to 2 mm apart",
    ),
    "two sizes": (change("PixelSpacing", [0.8, 0.6]), r"PixelSpacing is \[0\.8, 0\.5\] in image_0"),
    "two orientations": (
        change("ImageOrientationPatient", list(CORONAL)),
        "ImageOrientationPatient is .* in image_3",
    ),
    "no place": (change("ImagePositionPatient", None), "image_3 .*no ImagePositionPatient"),
    "cut": (cut, "pixels of .*image_3 cannot be read"),
    "one slice": (
        lambda f: [p.unlink() for p in f.iterdir() if p.name != "image_0"],
        "has 1 DICOM slices",
    ),
    "none": (lambda f: [p.write_text("x") for p in f.iterdir()], "has 0 DICOM slices"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_series_is_refused(tmp_path: Path, fault: str) -> None:
    damage, message = BROKEN[fault]
    write_series(tmp_path, voxels())
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


NAMES = {"liver": "Liver", "vein": "Portal|Hepatic", "tumour": "Tumor_.*"}


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    """Boxes that overlap, leave slices out in the middle, and are labelled in no order."""
    made = {name: np.zeros(SHAPE, bool) for name in ("Tumor_1", "Liver", "Portal", "Tumor_2")}
    made["Liver"][2:9, 1:7, 1:5] = True
    made["Portal"][3:5, 3:8, 2:4] = True  # beyond the liver
    made["Tumor_1"][3, 4, 3] = True  # in the vein
    made["Tumor_2"][[2, 7], 2, 2] = True  # with a gap
    return made


def painted(masks: dict[str, np.ndarray]) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    for value, names in enumerate((["Liver"], ["Portal"], ["Tumor_1", "Tumor_2"]), start=1):
        for name in names:
            label[masks[name]] = value
    return label


def test_segments_come_to_the_image_whatever_frames_are_left_out(
    tmp_path: Path, masks: dict[str, np.ndarray]
) -> None:
    images = write_series(tmp_path / "ct", voxels(), orientation=TILTED, origin=(3.0, -20.0, 50.0))
    write_segmentation(tmp_path / "seg/1.dcm", images, masks)
    path, files = find_segmentation(tmp_path)
    assert sorted(files) == sorted(images)
    image = read_series(tmp_path / "ct", files)
    label = read_segments(path, NAMES, ["liver"], image)
    place = written(TILTED, (3.0, -20.0, 50.0))
    np.testing.assert_array_equal(
        canonical(label.voxels, label.affine)[0], canonical(painted(masks), place)[0]
    )


def test_the_image_is_the_phase_that_was_segmented(
    tmp_path: Path, masks: dict[str, np.ndarray]
) -> None:
    """Two phases in one series, another series beside it, and slices that nobody segmented."""
    first = write_series(tmp_path / "ct", voxels(0), [f"a{k}" for k in range(11)], acquisition=1)
    write_series(tmp_path / "ct", voxels(1), [f"b{k}" for k in range(11)], acquisition=2)
    write_series(tmp_path / "other", voxels(2), series=generate_uid())
    part = {name: mask[2:9] for name, mask in masks.items()}
    write_segmentation(tmp_path / "seg/1.dcm", first[2:9], part)
    path, files = find_segmentation(tmp_path)
    assert sorted(files) == sorted(first)
    label = read_segments(path, NAMES, [], read_series(tmp_path, files))
    np.testing.assert_array_equal(
        np.bincount(label.voxels.ravel()), np.bincount(painted(masks).ravel())
    )


def test_a_segmentation_that_does_not_fit_is_refused(
    tmp_path: Path, masks: dict[str, np.ndarray]
) -> None:
    images = write_series(tmp_path / "ct", voxels())
    seg = write_segmentation(tmp_path / "seg/1.dcm", images, masks)
    image = read(tmp_path / "ct")
    with pytest.raises(InputError, match=r"no segment for 'spleen': its labels are \['Liver', "):
        read_segments(seg, {"spleen": "Spleen"}, ["spleen"], image)
    assert not read_segments(seg, {"spleen": "Spleen"}, [], image).voxels.any()
    elsewhere = image.affine.copy()
    elsewhere[:3, 3] += 0.3
    moved = Scan(image.voxels, elsewhere, image.path)
    with pytest.raises(InputError, match="cannot be brought to the grid of its image"):
        read_segments(seg, NAMES, [], moved)
    part = Scan(image.voxels[:5], image.affine, image.path)
    with pytest.raises(InputError, match=r"voxels of segment \d lie beyond it"):
        read_segments(seg, NAMES, [], part)
    write_segmentation(tmp_path / "seg/2.dcm", images, masks)
    with pytest.raises(InputError, match=r"has 2 DICOM-SEG objects \['1.dcm', '2.dcm'\]"):
        find_segmentation(tmp_path)
    (tmp_path / "seg/2.dcm").unlink()
    for path in images:
        path.unlink()
    with pytest.raises(InputError, match="has none of the 11 images"):
        find_segmentation(tmp_path)

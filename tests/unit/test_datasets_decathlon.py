"""Decathlon folders: what is read, and that every fault is named with file and value."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nifti_folders import case, edit, save, write_folder

from bench.datasets import DataConfig, open_source
from bench.datasets.decathlon import DecathlonSource
from bench.errors import InputError

AFFINE = np.diag([1.5, 1.0, 2.0, 1.0])
IMAGE = "imagesTr/case_001.nii.gz"
LABEL = "labelsTr/case_001.nii.gz"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "ellipsoids", n=4)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original, tmp_path / "ellipsoids"))


def source(folder: Path, **fields: object) -> DecathlonSource:
    opened = open_source(DataConfig(source=str(folder), **fields))
    assert isinstance(opened, DecathlonSource)
    return opened


def entry(image: str, label: str = LABEL) -> dict[str, str]:
    return {"image": image, "label": label}


def test_a_case_is_what_was_written(folder: Path) -> None:
    opened = source(folder)
    assert opened.name == "ellipsoids"
    assert opened.ids == ("case_000", "case_001", "case_002", "case_003")
    assert opened.label_names == {0: "background", 1: "big", 2: "small"}
    raw = opened.load("case_002")
    image, label = case(2)
    np.testing.assert_array_equal(raw.image, image)
    np.testing.assert_array_equal(raw.label, label)
    np.testing.assert_allclose(raw.affine, AFFINE)
    assert raw.source == {"file": "case_002.nii.gz"}


def test_hidden_files_of_macos_archives_are_skipped(folder: Path) -> None:
    (folder / "imagesTr/._case_000.nii.gz").write_bytes(b"AppleDouble")
    listed = [entry(f"./imagesTr/{name}.nii.gz") for name in ("._case_000", "case_000", "case_001")]
    edit(folder, {"training": listed})
    assert source(folder).ids == ("case_000", "case_001")


def test_some_cases_are_drawn_with_the_seed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "many", n=8)
    chosen = {seed: source(folder, cases=4, seed=seed).ids for seed in range(8)}
    assert all(len(ids) == 4 == len(set(ids)) for ids in chosen.values())
    assert len(set(chosen.values())) > 1
    assert set(chosen[0]) < set(source(folder, cases=5, seed=0).ids)


def test_the_fingerprint_follows_contents_not_the_place(folder: Path, original: Path) -> None:
    first = source(original).fingerprint
    assert source(folder).fingerprint == first
    assert source(folder, labels={1: "all", 2: "all"}).fingerprint != first
    save(folder / LABEL, case(9)[1], AFFINE + 0.001)
    assert source(folder).fingerprint != first


def test_labels_are_renamed_and_merged_by_configuration(folder: Path) -> None:
    opened = source(folder, labels={1: "mass", 2: "mass"})
    assert opened.label_names == {0: "background", 1: "mass"}
    np.testing.assert_array_equal(opened.load("case_001").label, case(1)[1] > 0)


def test_patients_are_found_in_case_ids(folder: Path) -> None:
    opened = source(folder, patients=r"_(\d\d)")
    assert {opened.patient(id) for id in opened.ids} == {"00"}
    assert source(folder).patient("case_001") == "case_001"
    with pytest.raises(InputError, match=r"'scan-\(\\\\d\+\)' finds no patient in .*'case_000'"):
        source(folder, patients=r"scan-(\d+)").patient("case_000")


def test_a_fourth_axis_of_one_is_dropped(folder: Path) -> None:
    image, label = case(1)
    save(folder / IMAGE, image[..., None], AFFINE)
    save(folder / LABEL, label[..., None], AFFINE)
    raw = source(folder).load("case_001")
    assert raw.image.shape == raw.label.shape == image.shape


def test_float_labels_near_whole_numbers_are_rounded_not_truncated(folder: Path) -> None:
    label = case(1)[1]
    save(folder / LABEL, label.astype(np.float32) - 0.0005, AFFINE)
    np.testing.assert_array_equal(source(folder).load("case_001").label, label)


def test_a_small_difference_of_affines_is_tolerated(folder: Path) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += 0.05
    save(folder / LABEL, case(1)[1], moved)
    np.testing.assert_allclose(source(folder).load("case_001").affine, AFFINE)


def listing(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder, changes)


def image_of(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: save(folder / IMAGE, change(case(1)[0]), AFFINE)


def label_of(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: save(folder / LABEL, change(case(1)[1]), AFFINE)


def truncate(path: str) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[: len(content) // 2])

    return cut


def put(image: np.ndarray, index: int, value: float) -> np.ndarray:
    changed = image.copy()
    changed.flat[index] = value
    return changed


def header(field: str, value: object) -> Callable[[Path], None]:
    """Change a field of the image's header behind nibabel's checks."""

    def change(folder: Path) -> None:
        raw = bytearray(gzip.decompress((folder / IMAGE).read_bytes()))
        np.frombuffer(raw, dtype=nib.Nifti1Header.template_dtype, count=1)[field] = value
        (folder / IMAGE).write_bytes(gzip.compress(bytes(raw)))

    return change


ON_OPENING = {
    "no folder": (shutil.rmtree, "data folder .*ellipsoids does not exist"),
    "no dataset.json": (
        lambda f: (f / "dataset.json").unlink(),
        "data folder .*ellipsoids has no dataset.json",
    ),
    "broken JSON": (
        lambda f: (f / "dataset.json").write_text('{"labels": '),
        r"dataset\.json is not valid JSON: .*line 1",
    ),
    "a list as JSON": (
        lambda f: (f / "dataset.json").write_text("[1]"),
        r"dataset\.json has labels: None",
    ),
    "no labels": (listing(labels=None), r"dataset\.json has labels: None"),
    "no training": (listing(training=None), r"dataset\.json has training: None"),
    "empty training": (listing(training=[]), r"dataset\.json has training: \[\]"),
    "labels the wrong way round": (listing(labels={"liver": 1}), "{'liver': 1}"),
    "only background": (listing(labels={"0": "background"}), r"declare no label .*'background'"),
    "entry without label": (
        listing(training=[{"image": IMAGE}]),
        r"training\[0\] = {'image': .*} without 'label'",
    ),
    "entry that is text": (listing(training=["a.nii.gz"]), r"training\[0\] = 'a.nii.gz'"),
    "path that leaves": (
        listing(training=[entry("../secret.nii.gz")]),
        r"image '\.\./secret\.nii\.gz' in training\[0\], which leaves",
    ),
    "path that leaves inside": (
        listing(training=[entry(IMAGE, "labelsTr/../../x.nii.gz")]),
        r"label 'labelsTr/\.\./\.\./x\.nii\.gz'",
    ),
    "absolute path": (listing(training=[entry("/etc/x.nii.gz")]), r"image '/etc/x\.nii\.gz'"),
    "not NIfTI": (listing(training=[entry("imagesTr/a.mha")]), "'a.mha', which is not a NIfTI"),
    "id twice": (
        listing(training=[entry(IMAGE), entry("other/case_001.nii")]),
        "case id 'case_001' twice",
    ),
    "file missing": (
        lambda f: (f / IMAGE).unlink(),
        r"imagesTr/case_001\.nii\.gz does not exist",
    ),
}


@pytest.mark.parametrize("fault", ON_OPENING)
def test_opening_refuses(folder: Path, fault: str) -> None:
    damage, message = ON_OPENING[fault]
    damage(folder)
    with pytest.raises(InputError, match=message):
        source(folder)


ON_LOADING = {
    "truncated image": (truncate(IMAGE), r"imagesTr/case_001\.nii\.gz cannot be read"),
    "truncated label": (truncate(LABEL), r"labelsTr/case_001\.nii\.gz cannot be read"),
    "not NIfTI inside": (
        lambda f: (f / IMAGE).write_bytes(gzip.compress(b"no image")),
        r"imagesTr/case_001\.nii\.gz cannot be read",
    ),
    "empty file": (lambda f: (f / IMAGE).write_bytes(b""), r"case_001\.nii\.gz cannot be read"),
    "colour image": (
        lambda f: save(
            f / IMAGE, np.zeros((4, 4, 4), dtype=[(c, np.uint8) for c in "RGB"]), AFFINE
        ),
        r"imagesTr/case_001\.nii\.gz cannot be read",
    ),
    "other shape": (
        label_of(lambda v: v[1:]),
        r"case_001\.nii\.gz has shape \(29, 36, 24\), but .* \(30, 36, 24\)",
    ),
    "other place": (
        lambda f: save(f / LABEL, case(1)[1], AFFINE + np.diag([0, 0, 0.5, 0])),
        r"labelsTr/case_001\.nii\.gz lies up to 11\.5 mm away",
    ),
    "identity affine of the label": (
        lambda f: save(f / LABEL, case(1)[1], np.eye(4)),
        r"labelsTr/case_001\.nii\.gz lies up to",
    ),
    "unknown label": (label_of(lambda v: put(v, 0, 9)), r"labelsTr/case_001.* values \[9\]"),
    "fractional label": (
        label_of(lambda v: put(v.astype(np.float32), 0, 0.4)),
        r"labelsTr/case_001.*label values such as \[0\.4",
    ),
    "NaN label": (
        label_of(lambda v: put(v.astype(np.float32), 0, np.nan)),
        r"labelsTr/case_001.*\[nan\]",
    ),
    "negative label": (
        label_of(lambda v: put(v.astype(np.int16), 0, -1)),
        r"labelsTr/case_001.*\[-1\]",
    ),
    "label beyond a byte": (
        label_of(lambda v: put(v.astype(np.int16), 0, 257)),
        r"labelsTr/case_001.*\[257\]",
    ),
    "all background": (label_of(np.zeros_like), r"labelsTr/case_001.* is background everywhere"),
    "NaN image": (image_of(lambda v: put(v, 5, np.nan)), r"imagesTr/case_001.* has 1 voxels"),
    "infinite image": (image_of(lambda v: put(v, 5, np.inf)), r"imagesTr/case_001.* not finite"),
    "constant image": (image_of(lambda v: v * 0 + 7), r"imagesTr/case_001.* value 7 everywhere"),
    "4D image": (
        image_of(lambda v: np.stack([v, v], axis=-1)),
        r"imagesTr/case_001.* has shape \(30, 36, 24, 2\)",
    ),
    "2D image": (image_of(lambda v: v[..., 0]), r"imagesTr/case_001.* has shape \(30, 36\)"),
    "zero voxel size": (
        header("pixdim", [1, 1, 0, 1, 0, 0, 0, 0]),
        r"imagesTr/case_001.* voxel sizes \[1\.0, 0\.0, 1\.0\]",
    ),
    "flat affine": (header("srow_y", [0, 0, 0, 0]), r"imagesTr/case_001.* which give no place"),
    "NaN affine": (header("srow_x", [np.nan, 0, 0, 0]), r"imagesTr/case_001.* give no place"),
}


@pytest.mark.parametrize("fault", ON_LOADING)
def test_loading_refuses(folder: Path, fault: str) -> None:
    damage, message = ON_LOADING[fault]
    damage(folder)
    opened = source(folder)
    opened.load("case_000")
    with pytest.raises(InputError, match=message):
        opened.load("case_001")


def test_the_number_of_cases_is_an_upper_bound(folder: Path) -> None:
    assert source(folder, cases=9).ids == source(folder).ids


def test_one_image_under_two_ids_is_refused(folder: Path) -> None:
    shutil.copy(folder / IMAGE, folder / "imagesTr/case_003.nii.gz")
    with pytest.raises(InputError, match="images of cases case_001 and case_003"):
        _ = source(folder).fingerprint


def test_label_values_dropped_by_name_are_no_foreground(folder: Path) -> None:
    names = {1: "background", 2: "background"}
    with pytest.raises(InputError, match="declare no label beside the background"):
        source(folder, labels=names)


def test_reading_follows_the_scale_factor_of_the_header(folder: Path) -> None:
    label = nib.Nifti1Image(case(1)[1].astype(np.int16) * 10, AFFINE)
    path = folder / LABEL
    nib.save(label, path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    np.frombuffer(raw, dtype=nib.Nifti1Header.template_dtype, count=1)["scl_slope"] = 0.1
    path.write_bytes(gzip.compress(bytes(raw)))
    np.testing.assert_array_equal(source(folder).load("case_001").label, case(1)[1])

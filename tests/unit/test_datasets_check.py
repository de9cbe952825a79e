"""`bench data check`: every problem in one pass, the same errors as a run, every trap a warning."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import Ran
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti_folders import case, edit, save, write_folder
from test_datasets_decathlon import AFFINE, IMAGE, LABEL, ON_LOADING, ON_OPENING

from bench.datasets import DataConfig, open_source
from bench.datasets.check import Checked, check
from bench.datasets.duplicates import voxel_key
from bench.datasets.prepare import prepare
from bench.errors import InputError

Bench = Callable[..., Ran]
Damage = Callable[[Path], Any]
N = 8


def rolled(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of case k: no two label maps are the same."""
    image, label = case(k)
    return np.roll(image, k - 2, axis=0), np.roll(label, k - 2, axis=0)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("data") / "ellipsoids", n=N)
    for k in range(N):
        for part, voxels in zip(("images", "labels"), rolled(k), strict=True):
            save(folder / f"{part}Tr/case_{k:03d}.nii.gz", voxels, AFFINE)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original, tmp_path / "ellipsoids"))


def checked(folder: Path, **fields: Any) -> Checked:
    return check(DataConfig(source=str(folder), grid=(32, 32, 32), **fields))


def texts(result: Checked, severity: str) -> list[str]:
    return [f"{p.case}: {p.text}" for p in result.problems if p.severity == severity]


def test_a_sound_folder_has_no_problems(folder: Path) -> None:
    seen = []
    result = check(
        DataConfig(source=str(folder), grid=(32, 32, 32)), lambda done, n: seen.append((done, n))
    )
    assert result.problems == []
    assert (result.name, result.cases) == ("ellipsoids", N)
    assert seen == [(k, N) for k in range(1, N + 1)]


@pytest.mark.parametrize("fault", [*ON_OPENING, *ON_LOADING])
def test_what_a_run_refuses_is_an_error_in_the_same_words(
    folder: Path, tmp_path: Path, fault: str
) -> None:
    damage, message = {**ON_OPENING, **ON_LOADING}[fault]
    damage(folder)
    config = DataConfig(source=str(folder), grid=(32, 32, 32))
    with pytest.raises(InputError, match=message) as refused:
        prepare(open_source(config), config, tmp_path / "sets")
    assert str(refused.value) in [p.text for p in check(config).problems if p.severity == "error"]


def test_other_refusals_of_a_run_are_errors_too(folder: Path, tmp_path: Path) -> None:
    flat = np.zeros_like(case(1)[0])
    flat[0, 0, 0] = 7  # far from all labels
    save(folder / IMAGE, flat, AFFINE)
    result = checked(folder, tasks={"x": {"x": ["spleen"]}}, patients=r"case_(00[0-6])")
    errors = "\n".join(texts(result, "error"))
    assert "uses the labels ['spleen']" in errors
    assert "finds no patient in the case id 'case_007'" in errors
    assert "Case case_001 of ellipsoids cannot be prepared: the intensities at" in errors
    assert "too few to give train, val" in "\n".join(
        texts(checked(folder, patients="(case)"), "error")
    )


def test_every_problem_is_told_in_one_pass(folder: Path) -> None:
    """Five cases with a fault each, one with two in both of its files, and a broken entry."""
    listed = json.loads((folder / "dataset.json").read_text())["training"]
    edit(folder, {"training": [*listed, {"image": "../x.nii.gz", "label": "y.nii.gz"}]})
    (folder / "imagesTr/case_000.nii.gz").unlink()
    damaged = folder / "imagesTr/case_001.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:200])
    image, label = case(2)
    image[0, 0, 0], label[0, 0, 0] = np.nan, 9
    save(folder / "imagesTr/case_002.nii.gz", image, AFFINE)
    save(folder / "labelsTr/case_002.nii.gz", label, AFFINE)
    save(folder / "labelsTr/case_003.nii.gz", case(3)[1], np.eye(4))
    save(folder / "labelsTr/case_001.nii.gz", case(1)[1] * 100, AFFINE)
    shutil.copy(folder / "imagesTr/case_004.nii.gz", folder / "imagesTr/case_005.nii.gz")
    errors = texts(checked(folder), "error")
    expected = [
        ": ",
        "case_000: ",
        "case_001: ",
        "case_001: ",
        "case_002: ",
        "case_002: ",
        "case_003: ",
        "case_005: ",
    ]
    assert sorted(e.split(" ")[0] + " " for e in errors) == expected
    joined = "\n".join(errors)
    for text in (
        "'../x.nii.gz'",
        "does not exist",
        "cannot be read",
        "[100, 200]",
        "not finite",
        "[9]",
        "lies up to",
        "cases case_004 and case_005",
    ):
        assert text in joined, text


def save_both(change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray = AFFINE) -> Damage:
    """Image and label alike, so that they still fit."""

    def damage(folder: Path) -> None:
        for path, voxels in zip((IMAGE, LABEL), rolled(1), strict=True):
            save(folder / path, change(voxels), affine)

    return damage


def placed(affine: np.ndarray) -> Damage:
    return save_both(lambda voxels: voxels, affine)


def with_affine(row: int, column: int, value: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[row, column] = value
    return affine


def two_forms(folder: Path) -> None:
    image = nib.Nifti1Image(rolled(1)[0], AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(with_affine(0, 3, 20), code=1)
    nib.save(image, folder / IMAGE)


def no_form(folder: Path) -> None:
    """As old converters leave it: voxel sizes alone, on which image and label agree."""
    for path in (IMAGE, LABEL):
        raw = bytearray(gzip.decompress((folder / path).read_bytes()))
        header = np.frombuffer(raw, dtype=nib.Nifti1Header.template_dtype, count=1)
        header["sform_code"], header["qform_code"] = 0, 0
        (folder / path).write_bytes(gzip.compress(bytes(raw)))


def corner_label(folder: Path) -> None:
    label = np.zeros_like(rolled(1)[1])
    label[:5, :5, :5], label[:5, -5:, :5] = 1, 2
    save(folder / LABEL, label, AFFINE)


def stray_voxels(folder: Path) -> None:
    label = np.minimum(rolled(1)[1], 1)
    label[15, 18, 12:15] = 2
    save(folder / LABEL, label, AFFINE)


WARNINGS: dict[str, tuple[Damage, str]] = {
    "identity affine (1)": (placed(np.eye(4)), r"case_001: .*has the identity as its affine"),
    "label beside its organ (1)": (
        corner_label,
        "case_001: 'big' has the mean intensity 20.*, brighter than 4.% of the image, against 9.%",
    ),
    "another orientation (1)": (
        placed(np.diag([-1.5, -1.0, 2.0, 1.0])),
        "case_001: The axes are LPS, in 7 of 8 cases RAS",
    ),
    "lost voxel size (1)": (
        placed(np.diag([1.5, 1.0, 20.0, 1.0])),
        "case_001: The voxel size is 1.5 x 1 x 20 mm, in the middle of the data set 1.5 x 1 x 2 mm",
    ),
    "metres for millimetres (1)": (
        placed(np.diag([150.0, 100.0, 200.0, 1.0])),
        r"case_001: .* is 4500 x 3600 x 4800 mm large",
    ),
    "qform is not sform (3)": (two_forms, "case_001: .*sform and a qform that lie up to 20 mm"),
    "no form (3)": (no_form, "case_001: .*sform and qform codes are 0"),
    "skew axes (3)": (
        placed(with_affine(0, 1, 0.1)),
        r"case_001: .*axes that are 84\.3 degrees apart",
    ),
    "stray voxels": (stray_voxels, "case_001: 'small' has 3 voxels"),
    "one label map for two images (2)": (
        lambda f: shutil.copy(f / "labelsTr/case_000.nii.gz", f / LABEL),
        "case_000: The cases case_000, case_001 have the same label map.*they are in",
    ),
    "unlisted file": (
        lambda f: shutil.copy(f / IMAGE, f / "imagesTr/new.nii.gz"),
        r"^: .*imagesTr has 1 files that .*dataset\.json does not list, such as new\.nii\.gz",
    ),
    "test case trained on (2)": (
        lambda f: edit(f, {"test": ["./imagesTr/case_003.nii.gz", "./imagesTs/other.nii.gz"]}),
        "^: .*lists 1 cases of training under test too, such as case_003",
    ),
}


@pytest.mark.parametrize("trap", WARNINGS)
def test_a_trap_is_a_warning_that_names_its_case(folder: Path, trap: str) -> None:
    damage, message = WARNINGS[trap]
    damage(folder)
    result = checked(folder)
    assert texts(result, "error") == []
    warnings = texts(result, "warning")
    assert any(re.search(message, warning) for warning in warnings), warnings
    sound = {f"case_{k:03d}" for k in range(2, N)}
    assert not sound & {problem.case for problem in result.problems}, warnings


def another_way(folder: Path) -> None:
    """Case 1 becomes case 0 with other types, flipped in voxels and in the world."""
    flipped = np.diag([-1.5, 1.0, 2.0, 1.0])
    image, label = rolled(0)
    save(folder / IMAGE, image.astype(np.float64)[::-1], flipped)
    save(folder / LABEL, label.astype(np.int16)[::-1], flipped)


READ_OR_REFUSED: dict[str, tuple[Damage, str]] = {
    "4D singletons (4)": (save_both(lambda v: v[..., None, None]), ""),
    "two volumes (4)": (
        lambda f: save(f / IMAGE, np.stack([rolled(1)[0]] * 2, -1), AFFINE),
        r"has shape \(30, 36, 24, 2\)",
    ),
    "labels near whole numbers (5)": (
        lambda f: save(f / LABEL, rolled(1)[1] + np.float32(0.0005), AFFINE),
        "",
    ),
    "labels far from whole numbers (5)": (
        lambda f: save(f / LABEL, rolled(1)[1] * np.float32(0.988), AFFINE),
        r"label values such as \[0\.98",
    ),
    "NaN (6)": (
        lambda f: save(f / IMAGE, np.where(rolled(1)[1] == 2, np.nan, 1.0), AFFINE),
        "voxels that are not finite",
    ),
    "labels of 0 and 255 (7)": (
        lambda f: save(f / LABEL, np.minimum(rolled(1)[1], 1) * np.uint8(255), AFFINE),
        r"label values \[255\], which are not declared",
    ),
    "identity beside a correct image (1)": (
        lambda f: save(f / LABEL, rolled(1)[1], np.eye(4)),
        "lies up to .* mm away from its image",
    ),
    "one image twice, stored another way (2)": (
        another_way,
        "images of cases case_000 and case_001 of ellipsoids hold the same voxels",
    ),
}


@pytest.mark.parametrize("trap", READ_OR_REFUSED)
def test_a_trap_is_read_right_or_refused(folder: Path, tmp_path: Path, trap: str) -> None:
    damage, message = READ_OR_REFUSED[trap]
    damage(folder)
    errors = texts(checked(folder), "error")
    config = DataConfig(source=str(folder), grid=(32, 32, 32))
    if not message:
        assert errors == []
        raw = open_source(config).load("case_001")
        for read, written in zip((raw.image, raw.label), rolled(1), strict=True):
            np.testing.assert_array_equal(read, written)
        return
    (error,) = errors
    assert re.search(f"^case_001: .*{message}", error)
    with pytest.raises(InputError, match=message):
        prepare(open_source(config), config, tmp_path / "sets")


def test_patients_that_only_their_ids_give_away(folder: Path) -> None:
    listed = json.loads((folder / "dataset.json").read_text())["training"]
    for k, entry in enumerate(listed):
        for key in ("image", "label"):
            path = folder / entry[key]
            entry[key] = f"{path.parent.name}/sub{k // 2}_phase{k % 2}.nii.gz"
            path.rename(folder / entry[key])
    edit(folder, {"training": listed})
    warnings = texts(checked(folder), "warning")
    assert len(warnings) == 4
    assert "sub1_phase0, sub1_phase1 all begin with 'sub1'" in warnings[1]
    assert "set data.patients" in warnings[1]
    assert checked(folder, patients="^(sub.)_").problems == []


def test_labels_that_few_cases_have_and_those_the_grid_loses(folder: Path) -> None:
    for k in range(N):
        label = np.minimum(rolled(k)[1], 1)
        label[14:17, 18, 12 : 12 + 5 * (k < 2)] = 2
        save(folder / f"labelsTr/case_{k:03d}.nii.gz", label, AFFINE)
    warnings = texts(checked(folder), "warning")
    assert any("'small' is in 2 of 8 cases, too few" in warning for warning in warnings)
    coarse = checked(folder, spacing=(9.0, 9.0, 9.0))
    assert any("'small' vanishes on the grid" in text for text in texts(coarse, "warning"))
    cut = checked(folder, spacing=(0.5, 0.5, 0.5))
    assert any("% of the labelled voxels" in text for text in texts(cut, "warning"))


def test_one_image_in_two_data_sets(folder: Path, tmp_path: Path, bench: Bench) -> None:
    """As 3D-IRCADb-01 in LiTS: another file, another orientation, the same voxels."""
    other = write_folder(tmp_path / "other", n=4, shape=(30, 36, 20))
    image, label = rolled(2)
    save(other / IMAGE, image[::-1, :, ::-1].transpose(2, 0, 1), AFFINE)
    save(other / LABEL, label[::-1, :, ::-1].transpose(2, 0, 1), AFFINE)
    ran = bench("data", "check", folder, other, "--json")
    first, second = json.loads(ran.out)
    assert first["problems"] == []
    (found,) = [p for p in second["problems"] if p["check"] == "duplicates"]
    assert (found["severity"], found["case"]) == ("warning", "case_001")
    assert "case_002 of ellipsoids" in found["text"]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    axes=st.permutations([0, 1, 2]),
    flips=st.lists(st.booleans(), min_size=3, max_size=3),
    index=st.integers(0, 59),
    add=st.sampled_from([-1.0, 1e-3, 7.0]),
)
def test_a_voxel_key_is_of_the_values_alone(
    seed: int, axes: list[int], flips: list[bool], index: int, add: float
) -> None:
    image = np.random.default_rng(seed).normal(size=(3, 4, 5)).astype(np.float32)
    turned = image.transpose(axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    assert voxel_key(turned) == voxel_key(image)
    changed = image.copy()
    changed.flat[index] += add
    assert voxel_key(changed) != voxel_key(image)
    assert voxel_key(image.reshape(3, 2, 10)) != voxel_key(image)


def test_a_layout_without_a_mask_is_told(tmp_path: Path) -> None:
    for k in range(N):
        image, label = case(k)
        save(tmp_path / f"p{k}/image.nii.gz", image, AFFINE)
        save(tmp_path / f"p{k}/organ.nii.gz", np.roll(label > 0, k, 0).astype(np.uint8), AFFINE)
        if k:
            save(tmp_path / f"p{k}/mass.nii.gz", (label > 1).astype(np.uint8), AFFINE)
    layout = {
        "image": "p{case}/image.nii.gz",
        "masks": {"organ": ["p{case}/organ.nii.gz"], "mass": ["p{case}/mass.nii.gz"]},
        "required": ["organ"],
    }
    (warning,) = texts(checked(tmp_path, layout=layout), "warning")
    assert warning.startswith("0: There is no file of 'mass', which counts as absent")
    (tmp_path / "p2/organ.nii.gz").unlink()
    (error,) = texts(checked(tmp_path, layout=layout), "error")
    assert "2: " in error
    assert "has no mask of 'organ'" in error


def test_the_command_shows_errors_first_and_says_it_by_its_code(bench: Bench, folder: Path) -> None:
    assert bench("data", "check", folder).out == "ellipsoids: 8 cases read, 0 errors, 0 warnings.\n"
    placed(np.eye(4))(folder)
    ran = bench("data", "check", folder)
    assert ran.code == 0
    assert ran.out.startswith("warning: case_001: ")
    for k in range(N):
        save(folder / f"labelsTr/case_{k:03d}.nii.gz", rolled(k)[1] * 100, AFFINE)
    ran = bench("data", "check", folder)
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].startswith("error: case_000: ")
    assert "error: 3 more about labels; --all shows them." in lines
    assert lines[-1] == "ellipsoids: 8 cases read, 9 errors, 1 warning."
    ran = bench("data", "check", folder, "--json")
    assert ran.code == 1
    (found,) = json.loads(ran.out)
    assert (found["errors"], len(found["problems"])) == (9, 10)
    assert set(found["problems"][0]) == {"severity", "case", "check", "text"}
    assert bench("data", "check", folder / "nowhere").code == 2
    (folder.parent / "my.yaml").write_text("source: ellipsoids\nlabels: {100: a, 200: b}\n")
    ran = bench("data", "check", folder.parent / "my.yaml", "--all")
    assert ran.out.splitlines()[-1] == "ellipsoids: 8 cases read, 1 error, 1 warning."
    assert ran.out.startswith("error: case_001: ")  # the label that lies elsewhere
    assert bench("data", "check", "phantom").code == 2


def test_a_check_has_one_case_in_memory(tmp_path: Path) -> None:
    """Twelve cases need hardly more than three."""
    peaks = []
    for n in (3, 12):
        folder = write_folder(tmp_path / f"{n}", n=n, shape=(64, 64, 48))
        tracemalloc.start()
        checked(folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]

"""The ready data sets, each read from a small folder in its layout with its traps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Ran
from dicom_folders import write_segmentation, write_series
from nifti_folders import case, edit, save, write_folder
from PIL import Image

from bench.datasets import DataConfig, open_source, tasks_of
from bench.datasets.config import read_data_argument
from bench.datasets.prepare import prepare_case
from bench.datasets.ready import read_ready, ready_names
from bench.datasets.source import Source
from bench.errors import InputError

SHAPE = (12, 20, 16)  # slice, row, column
AFFINE = np.diag([1.5, 1.0, 2.0, 1.0])


def opened(name: str, folder: Path, **fields: object) -> Source:
    return open_source(DataConfig(**{**read_data_argument(f"{name}={folder}"), **fields}))


def voxels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, SHAPE, dtype=np.int16)


def box(*slices: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[slices] = True
    return mask


LIVER = box(slice(2, 10), slice(3, 17), slice(2, 12))
PORTAL = box(slice(4, 7), slice(8, 12), slice(5, 15))  # beyond the liver
HEPATIC = box(slice(5, 9), slice(9, 11), slice(6, 9))  # over the portal vein
TUMOUR = box(slice(6, 8), slice(9, 10), slice(7, 8))  # in the hepatic vein
SECOND = box(slice(3, 4), slice(4, 6), slice(3, 5))


def volumes(source: Source, id: str) -> dict[str, int]:
    """Voxels of each label of a case."""
    label = source.load(id).label
    return {name: int((label == v).sum()) for v, name in source.label_names.items() if v}


@pytest.mark.parametrize("name", ready_names())
def test_a_ready_set_is_complete(name: str, tmp_path: Path) -> None:
    ready = read_ready(name)
    config = DataConfig(**{**ready.data, "source": str(tmp_path)})
    names = config.layout.names if config.layout and config.layout.names else None
    labels = config.labels or dict(enumerate(names or (), start=1))
    assert tasks_of(config, {0: "background", **labels})
    assert DataConfig.model_validate(config.model_dump(mode="json")) == config
    assert any("FOLDER is" in step for step in ready.about.steps)
    pages = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    assert f"`{name}`" in pages
    assert ready.about.licence.split(" (")[0] in pages


def ircadb(folder: Path, patient: int, masks: dict[str, np.ndarray], inside: int = 255) -> None:
    """A patient as the archives leave him: doubled folders, names without ending."""
    place = folder / f"3Dircadb1.{patient}"
    write_series(place / "PATIENT_DICOM/PATIENT_DICOM", voxels(patient))
    for name, mask in masks.items():
        pixels = mask.astype(np.int16) * inside
        write_series(place / "MASKS_DICOM/MASKS_DICOM" / name, pixels)


def test_ircadb(tmp_path: Path) -> None:
    ircadb(
        tmp_path,
        1,
        {
            "liver": LIVER,
            "portalvein": PORTAL,
            "venoussystem": HEPATIC,
            "livertumor01": TUMOUR,
            "livertumor02": SECOND,
            "tumor": ~LIVER,  # not of the liver
        },
    )
    ircadb(tmp_path, 2, {"liver": LIVER, "portalvein1": PORTAL, "venacava": HEPATIC}, inside=1)
    ircadb(tmp_path, 11, {"liver": LIVER, "livertumors": TUMOUR, "liverkyst": SECOND})
    (tmp_path / "LICENSE.txt").write_text("CC BY-NC-ND")
    source = opened("3d-ircadb-01", tmp_path)
    assert source.name == "3D-IRCADb-01"
    assert source.ids == ("1", "11", "2")
    expected = np.zeros(SHAPE, np.uint8)
    for value, mask in enumerate((LIVER, PORTAL, HEPATIC, TUMOUR | SECOND), start=1):
        expected[mask] = value
    count = np.bincount(expected.ravel())
    assert list(volumes(source, "1").values()) == count[1:].tolist()
    assert volumes(source, "2")["tumour"] == 0
    assert volumes(source, "2")["portal vein"] == (PORTAL & ~HEPATIC).sum()
    assert volumes(source, "11") == {
        "liver": (LIVER & ~TUMOUR).sum(),
        "portal vein": 0,
        "hepatic vein": 0,
        "tumour": TUMOUR.sum(),
    }
    prepared = prepare_case(source.load("1"), DataConfig(grid=(32, 32, 32)))
    assert set(np.unique(prepared.label)) == {0, 1, 2, 3, 4}


def test_a_slice_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    ircadb(tmp_path / "set", 1, {"liver": LIVER})
    slice_ = tmp_path / "set/3Dircadb1.1/PATIENT_DICOM/PATIENT_DICOM/image_3"
    slice_.symlink_to(slice_.rename(tmp_path / "image_3"))
    with pytest.raises(InputError, match="image_3 is a link to"):
        opened("3d-ircadb-01", tmp_path / "set")
    assert opened("3d-ircadb-01", tmp_path / "set", links=True).load("1").label.any()


def test_missing_readers_of_dicom_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ircadb(tmp_path, 1, {"liver": LIVER})
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"pip install 'voxelbench\[dicom\]'"):
        _ = opened("3d-ircadb-01", tmp_path).fingerprint


def test_ircadb_without_a_liver_is_refused_but_the_others_are_told(tmp_path: Path) -> None:
    ircadb(tmp_path, 1, {"portalvein": PORTAL})
    with pytest.raises(InputError, match=r"3Dircadb1.1/PATIENT_DICOM.* has no mask of 'liver'"):
        opened("3d-ircadb-01", tmp_path)


def test_the_fingerprint_follows_masks_and_how_they_are_painted(tmp_path: Path) -> None:
    ircadb(tmp_path, 1, {"liver": LIVER, "portalvein": PORTAL})
    before = opened("3d-ircadb-01", tmp_path)
    fields = read_data_argument(f"3d-ircadb-01={tmp_path}")
    masks = dict(reversed(fields["layout"]["masks"].items()))
    layout = {**fields["layout"], "masks": masks}
    turned = opened("3d-ircadb-01", tmp_path, layout=layout)
    assert turned.fingerprint != before.fingerprint
    assert opened("3d-ircadb-01", tmp_path).fingerprint == before.fingerprint
    mask = tmp_path / "3Dircadb1.1/MASKS_DICOM/MASKS_DICOM/liver"
    write_series(mask, SECOND.astype(np.int16))
    assert opened("3d-ircadb-01", tmp_path).fingerprint != before.fingerprint


def test_crlm(tmp_path: Path) -> None:
    segments = {
        "Liver": LIVER,
        "Liver_Remnant": SECOND,
        "Hepatic": HEPATIC,
        "Portal": PORTAL,
        "Tumor_1": TUMOUR,
        "Tumor_2": SECOND,
    }
    for patient in ("CRLM-CT-1001", "CRLM-CT-1002"):
        study = tmp_path / patient / "09-11-1989-NA-CT-1"
        images = write_series(study / "100-CT", voxels(int(patient[-1])))
        write_segmentation(study / "101-Segmentation/1-1.dcm", images, segments)
    (tmp_path / "LICENSE").write_text("CC BY 4.0")
    source = opened("crlm", tmp_path)
    assert source.ids == ("CRLM-CT-1001", "CRLM-CT-1002")
    found = volumes(source, "CRLM-CT-1001")
    assert found["tumour"] == (TUMOUR | SECOND).sum()
    assert found["hepatic vein"] == (HEPATIC & ~TUMOUR).sum()
    assert found["portal vein"] == (PORTAL & ~HEPATIC).sum()
    assert source.fingerprint != opened("crlm", tmp_path, cases=None, labels=None).label_names


@pytest.mark.parametrize("name", ["msd-liver", "msd-hepatic-vessel"])
def test_decathlon(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "Task")
    # Files of macOS archives are in the Decathlon's tars.
    (folder / "imagesTr/._case_000.nii.gz").write_bytes(b"AppleDouble")
    source = opened(name, folder)
    assert list(source.label_names.values())[1:] == list(read_ready(name).data["labels"].values())
    assert len(source.ids) == 5


def test_atlas(tmp_path: Path) -> None:
    for i in (0, 2, 10):
        image, label = case(i)
        save(tmp_path / f"train/imagesTr/im{i}.nii.gz", image, AFFINE)
        save(tmp_path / f"train/labelsTr/lb{i}.nii.gz", label, AFFINE)
    (tmp_path / "train/dataset.json").write_text("{}")
    source = opened("atlas-2023", tmp_path / "train")
    assert source.ids == ("0", "10", "2")
    for i in (2, 10):  # the pairs stay pairs
        np.testing.assert_array_equal(source.load(str(i)).image, case(i)[0])
    (tmp_path / "train/labelsTr/lb10.nii.gz").unlink()
    with pytest.raises(InputError, match=r"im10\.nii\.gz has no label: .*lb10\.nii\.gz does not"):
        opened("atlas-2023", tmp_path / "train")


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("name", ["chaos-mr-t2", "chaos-mr-t1", "chaos-ct"])
def test_chaos(name: str, falling: bool, tmp_path: Path) -> None:
    """PNG slices belong to files in the order of their names, wherever these lie."""
    part = {"chaos-mr-t2": "MR/1/T2SPIR", "chaos-mr-t1": "MR/1/T1DUAL", "chaos-ct": "CT/1"}[name]
    phase = "/InPhase" if name == "chaos-mr-t1" else ""
    grey = {"liver": 63, "right kidney": 126, "left kidney": 189, "spleen": 252}
    label = np.zeros(SHAPE, np.uint8)
    for value, mask in zip(grey.values(), (LIVER, PORTAL, HEPATIC, SECOND), strict=True):
        label[mask] = value
    if name == "chaos-ct":
        label = LIVER.astype(np.uint8) * 255
    step = -2.0 if falling else 2.0
    names = [f"IMG-0004-{k:05d}.dcm" for k in range(SHAPE[0])]
    write_series(tmp_path / part / f"DICOM_anon{phase}", voxels(0), names, step=step)
    if phase:  # has the same SeriesInstanceUID
        write_series(tmp_path / part / "DICOM_anon/OutPhase", voxels(1), names, step=step)
    ground = tmp_path / part / "Ground"
    ground.mkdir()
    for k, plane in enumerate(label):
        picture = Image.fromarray(plane)
        (picture.convert("1") if name == "chaos-ct" else picture).save(ground / f"s_{k}.png")
    source = opened(name, tmp_path)
    raw = source.load("1")
    rising = raw.affine[2, 0] * step > 0
    turned = slice(None) if rising else slice(None, None, -1)
    np.testing.assert_array_equal(raw.image, voxels(0)[turned])
    np.testing.assert_array_equal(
        raw.label == 1, (label == label[LIVER].min())[turned] & ~_over(name)[turned]
    )
    (ground / "s_3.png").unlink()
    with pytest.raises(InputError, match=r"has 11 PNG slices, but its image .* has 12 files"):
        opened(name, tmp_path).load("1")


def _over(name: str) -> np.ndarray:
    """What is painted over the liver."""
    return np.zeros(SHAPE, bool) if name == "chaos-ct" else PORTAL | HEPATIC | SECOND


def test_grey_values_that_no_label_has_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "MR/1/T2SPIR"
    write_series(place / "DICOM_anon", voxels(0))
    (place / "Ground").mkdir()
    for k in range(SHAPE[0]):
        Image.fromarray(np.full(SHAPE[1:], 90, np.uint8)).save(place / f"Ground/s_{k}.png")
    with pytest.raises(InputError, match=r"Ground has the values \[90\], which no label has"):
        opened("chaos-mr-t2", tmp_path).load("1")


def test_liverhccseg(tmp_path: Path) -> None:
    def patient(id: str, date: str, masks: dict[str, np.ndarray]) -> None:
        place = tmp_path / id / date
        save(place / "art.nii.gz", voxels(len(id) + int(date[-1])), AFFINE)
        save(place / "pre.nii.gz", voxels(9), AFFINE)
        for name, mask in masks.items():
            save(place / f"{name}.nii.gz", mask.astype(np.uint8), AFFINE)

    tumours = {"rater1_tumor1": TUMOUR, "rater1_tumor2": SECOND, "rater2_tumor1": ~LIVER}
    patient("TCGA-BC-A10Y", "01-02-2003", {"rater1_liver": LIVER, **tumours})
    patient("TCGA-BC-A10Y", "01-02-2004", {"rater1_liver": LIVER})
    source = opened("liverhccseg", tmp_path)
    assert source.ids == ("TCGA-BC-A10Y_01-02-2003", "TCGA-BC-A10Y_01-02-2004")
    assert {source.patient(id) for id in source.ids} == {"TCGA-BC-A10Y"}
    first, second = (volumes(source, id) for id in source.ids)
    assert first == {"liver": (LIVER & ~TUMOUR & ~SECOND).sum(), "HCC": (TUMOUR | SECOND).sum()}
    assert second["HCC"] == 0
    mask = tmp_path / "TCGA-BC-A10Y/01-02-2003/rater1_tumor1.nii.gz"
    save(mask, TUMOUR.astype(np.uint8), np.eye(4))
    with pytest.raises(InputError, match=r"rater1_tumor1\.nii\.gz lies up to"):
        opened("liverhccseg", tmp_path).load(source.ids[0])


def test_amos_takes_mr_alone(tmp_path: Path) -> None:
    label = np.where(LIVER, 6, 0).astype(np.uint8)
    label[SECOND] = 15
    label[TUMOUR] = 9
    for part, number in (("Tr", 499), ("Tr", 500), ("Tr", 501), ("Va", 600), ("Ts", 550)):
        save(tmp_path / f"images{part}/amos_0{number}.nii.gz", voxels(number), AFFINE)
        if part != "Ts":
            save(tmp_path / f"labels{part}/amos_0{number}.nii.gz", label, AFFINE)
    source = opened("amos22-mr", tmp_path)
    assert source.ids == ("Tr_0501", "Va_0600")
    assert source.label_names == {0: "background", 6: "liver", 9: "postcava"}
    assert volumes(source, "Va_0600") == {
        "liver": (LIVER & ~SECOND & ~TUMOUR).sum(),
        "postcava": TUMOUR.sum(),
    }


def test_the_command_says_how_to_get_it(bench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = bench("data", "get", "3d-ircadb-01")
    assert ran.code == 0
    for text in ("CC BY-NC-ND 4.0", "https://www.ircad.fr", "bench run --data 3d-ircadb-01=FOLDER"):
        assert text in ran.out
    text = bench("data", "get", "atlas-2023", "--yaml").out
    (tmp_path / "my.yaml").write_text(text.replace("FOLDER", "scans"))
    fields = read_data_argument(str(tmp_path / "my.yaml"))
    assert fields == {**read_ready("atlas-2023").data, "source": str(tmp_path / "scans")}
    assert "did you mean atlas-2023" in bench("data", "get", "atlas").err
    ran = bench("run", "--data", "atlas-2023", "--dry-run")
    assert ran.code == 2
    assert "give atlas-2023=FOLDER" in ran.err
    ran = bench("run", "--data", f"atlas-2023={tmp_path}", "--dry-run")
    assert "nothing that matches layout.image 'imagesTr/im{case}.nii.gz'" in ran.err
    assert "atlas-2023=FOLDER" in bench("list", "datasets").out


def test_a_ready_set_is_planned_as_any_other(bench: Callable[..., Ran], tmp_path: Path) -> None:
    for i in range(10):
        image, label = case(i)
        save(tmp_path / f"imagesTr/im{i}.nii.gz", image, AFFINE)
        save(tmp_path / f"labelsTr/lb{i}.nii.gz", label, AFFINE)
    command = ("run", "--data", f"atlas-2023={tmp_path}", "--dry-run", "--generators", "none")
    ran = bench(*command, "--segmenters", "unet", "--set", "data.grid=[32,32,32]")
    assert ran.code == 0, ran.err
    assert "hcc-only" in ran.out
    assert "ATLAS 2023" in ran.out


def test_settings_of_a_folder_beat_the_ready_ones(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "Task")
    edit(folder, {"name": "other"})
    config = DataConfig(**{**read_data_argument(f"msd-liver={folder}"), "name": "mine"})
    assert open_source(config).name == "mine"

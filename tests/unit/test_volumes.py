"""VolumeSet and its writer: what is written is read, and damage is noticed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.errors import InputError
from bench.volumes import VolumeSet, VolumeSetWriter, concatenate

GRID = (4, 3, 5)
NAMES = {0: "background", 1: "liver", 2: "vein"}


def write(folder: Path, n: int = 3, labelled: bool = True, seed: int = 0) -> VolumeSet:
    rng = np.random.default_rng(seed)
    with VolumeSetWriter(folder, GRID, NAMES, {"made": "here"}) as writer:
        for i in range(n):
            label = rng.integers(0, 3, GRID).astype(np.uint8) if labelled else None
            affine = np.diag([1.0, 2.0, 3.0, 1.0])
            writer.append(f"case-{seed}-{i}", rng.random(GRID), label, affine, {"patient": f"p{i}"})
    return VolumeSet.open(folder)


@settings(max_examples=25, deadline=None)
@given(
    images=arrays(
        np.float32,
        st.tuples(st.integers(1, 12), *map(st.just, GRID)),
        elements=st.floats(0, 1, width=32),
    ),
    dtype=st.sampled_from(["float16", "float32"]),
)
def test_images_come_back_as_numpy_reads_them(tmp_path_factory, images, dtype) -> None:
    folder = tmp_path_factory.mktemp("set")
    with VolumeSetWriter(folder, GRID, NAMES, dtype=dtype) as writer:
        for i, image in enumerate(images):
            writer.append(str(i), image)
    volumes = VolumeSet.open(folder)
    np.testing.assert_array_equal(volumes.images(), images.astype(dtype).astype(np.float32))
    # The header was written for no case and rewritten: plain numpy must read the file.
    np.testing.assert_array_equal(np.load(folder / "images.npy"), images.astype(dtype))
    assert not volumes.has_labels
    assert not (folder / "labels.npy").exists()


def test_everything_known_of_a_case_comes_back(tmp_path: Path) -> None:
    volumes = write(tmp_path)
    assert volumes.ids == ("case-0-0", "case-0-1", "case-0-2")
    assert volumes.grid == GRID
    assert volumes.label_names == NAMES
    assert volumes.provenance == {"made": "here"}
    assert volumes.cases[1].spacing == (1.0, 2.0, 3.0)
    assert volumes.cases[1].source == {"patient": "p1"}
    meta = json.loads((tmp_path / "set.json").read_text())
    assert meta["axes"] == "RAS"
    assert meta["spacing_mm"] == [1.0, 2.0, 3.0]
    assert [volumes.label(i).dtype for i in range(3)] == [np.uint8] * 3


def test_subset_and_concatenation_keep_the_order_and_copy_nothing(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b", 2, seed=1)
    files = sorted(tmp_path.rglob("*"))
    joined = concatenate(first.subset([2, 0]), second)
    assert joined.ids == ("case-0-2", "case-0-0", "case-1-0", "case-1-1")
    np.testing.assert_array_equal(joined.image(3), second.image(1))
    np.testing.assert_array_equal(joined.label(0), first.label(2))
    assert sorted(tmp_path.rglob("*")) == files


def test_concatenation_with_an_unlabelled_set_has_no_labels(tmp_path: Path) -> None:
    joined = concatenate(write(tmp_path / "a"), write(tmp_path / "b", labelled=False, seed=1))
    assert not joined.has_labels
    with pytest.raises(ValueError, match="no labels"):
        joined.label(0)


def test_sets_of_other_grids_or_labels_are_not_concatenated(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    with VolumeSetWriter(tmp_path / "b", (2, 2, 2), NAMES) as writer:
        writer.append("x", np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"\(4, 3, 5\) and \(2, 2, 2\)"):
        concatenate(first, VolumeSet.open(tmp_path / "b"))


def test_a_set_can_be_sent_to_another_process(tmp_path: Path) -> None:
    volumes = write(tmp_path)
    sent = pickle.loads(pickle.dumps(volumes))
    assert len(pickle.dumps(volumes)) < 5000
    np.testing.assert_array_equal(sent.images(), volumes.images())


def test_new_labels_have_new_checksums(tmp_path: Path) -> None:
    volumes = write(tmp_path / "set")
    path = tmp_path / "pseudo.npy"
    np.save(path, np.zeros((3, *GRID), dtype=np.uint8))
    relabelled = volumes.with_labels(path)
    assert not relabelled.labels().any()
    relabelled.verify()
    assert relabelled.fingerprint != volumes.fingerprint
    with pytest.raises(ValueError, match=r"has shape \(3, 4, 3, 5\), expected \(2, 4, 3, 5\)"):
        volumes.subset([0, 1]).with_labels(path)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy"])
def test_verify_names_the_damaged_case(tmp_path: Path, file: str) -> None:
    volumes = write(tmp_path)
    volumes.verify()
    array = np.load(tmp_path / file, mmap_mode="r+")
    array[1, 0, 0, 0] = 0 if array[1, 0, 0, 0] else 1
    array.flush()
    with pytest.raises(ValueError, match="case-0-1"):
        volumes.verify()


def test_fingerprint_depends_on_content_not_on_place(tmp_path: Path) -> None:
    first, again, other = (write(tmp_path / n, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert first.fingerprint == again.fingerprint
    different = {
        first.fingerprint,
        other.fingerprint,
        first.subset([1, 0, 2]).fingerprint,
        first.subset([0, 1]).fingerprint,
    }
    assert len(different) == 4


def test_an_unfinished_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path} is not a volume set"):
        VolumeSet.open(tmp_path)
    write(tmp_path)
    VolumeSetWriter(tmp_path, GRID, NAMES).append("x", np.zeros(GRID))
    with pytest.raises(InputError, match=r"no set\.json"):
        VolumeSet.open(tmp_path)


def test_a_writer_that_fails_leaves_no_set(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="not finite"),
        VolumeSetWriter(tmp_path, GRID, NAMES) as writer,
    ):
        writer.append("x", np.full(GRID, np.nan))
    assert not (tmp_path / "set.json").exists()


def test_a_damaged_or_newer_set_json_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "set.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(InputError, match=r"set\.json has format 99"):
        VolumeSet.open(tmp_path)
    path.write_text(json.dumps(meta)[:100])
    with pytest.raises(InputError, match=r"set\.json is damaged"):
        VolumeSet.open(tmp_path)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (np.zeros((4, 3, 4)), None, r"image of case x has shape \(4, 3, 4\)"),
        (np.full(GRID, 1.5), None, r"\[1.5, 1.5\], expected \[0, 1\]"),
        (np.full(GRID, np.nan), None, "not finite"),
        (np.zeros(GRID), np.full(GRID, 7, np.uint8), r"values \[7\]"),
        (np.zeros(GRID), np.full((1, 1, 1), 0, np.uint8), r"label of case x has shape \(1, 1, 1\)"),
    ],
)
def test_a_wrong_volume_is_refused(tmp_path: Path, image, label, message) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeSetWriter(tmp_path, GRID, NAMES).append("x", image, label)


def test_labels_for_some_cases_and_an_id_twice_are_refused(tmp_path: Path) -> None:
    writer = VolumeSetWriter(tmp_path, GRID, NAMES)
    writer.append("x", np.zeros(GRID))
    with pytest.raises(ValueError, match=r"Case y .* disagree on having a label"):
        writer.append("y", np.zeros(GRID), np.zeros(GRID, np.uint8))
    with pytest.raises(ValueError, match="Case x was already written"):
        writer.append("x", np.zeros(GRID))


def test_export_is_what_nibabel_opens(tmp_path: Path) -> None:
    volumes = write(tmp_path / "set")
    volumes.export_nifti(tmp_path / "out")
    image = nib.load(tmp_path / "out/imagesTr/case-0-1.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), volumes.image(1))
    np.testing.assert_allclose(image.affine, volumes.cases[1].affine)
    np.testing.assert_allclose(image.get_qform(), image.get_sform())
    assert image.header["qform_code"] == image.header["sform_code"] == 1


def test_export_without_labels_lists_the_images_as_test(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", labelled=False).export_nifti(tmp_path / "out")
    meta = json.loads((folder / "dataset.json").read_text())
    assert (meta["training"], meta["numTest"]) == ([], 3)
    assert all((folder / name).is_file() for name in meta["test"])


def test_export_refuses_an_id_that_leaves_the_folder(tmp_path: Path) -> None:
    with VolumeSetWriter(tmp_path / "set", GRID, NAMES) as writer:
        writer.append("../x", np.zeros(GRID))
    with pytest.raises(ValueError, match=r"'\.\./x'"):
        VolumeSet.open(tmp_path / "set").export_nifti(tmp_path / "out")

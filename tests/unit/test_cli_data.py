"""`bench data show`, `bench data phantom`, `bench export`: what others make of the files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import TOYS, Ran
from nifti_folders import case, save, write_folder
from PIL import Image
from toy_runs import cells

from bench.datasets.montage import Shown, montage
from bench.datasets.phantom import LABEL_NAMES, phantom_case
from bench.datasets.source import RawCase
from bench.datasets.write import ToWrite, write_nnunet
from bench.errors import InputError
from bench.store import Store
from bench.volumes import VolumeSet

Bench = Callable[..., Ran]
AFFINE = np.diag([1.5, 1.0, 2.0, 1.0])


def test_phantoms_as_files_are_the_phantoms_and_pass_the_check(
    bench: Bench, tmp_path: Path
) -> None:
    out = tmp_path / "phantoms"
    ran = bench(
        *("data", "phantom", out, "--cases", 3, "--grid", 48, 32, 32, "--seed", 5),
    )
    assert ran.code == 0, ran.err
    truth = phantom_case(2, 5, (48, 32, 32))
    image = nib.load(out / "imagesTr/phantom-0002.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), truth.image)
    assert image.header.get_zooms() == pytest.approx(truth.spacing)
    label = nib.load(out / "labelsTr/phantom-0002.nii.gz")
    np.testing.assert_array_equal(np.asarray(label.dataobj), truth.label)
    ran = bench("data", "check", out, "--json")
    assert ran.code == 0
    assert json.loads(ran.out)[0]["errors"] == 0
    ran = bench("run", "--data", out, "--dry-run", "--generators", "none")
    assert ran.code == 0, ran.err
    assert "hcc-only" in ran.out
    again = bench("data", "phantom", out)
    assert again.code == 2
    assert "holds something already" in again.err
    wrong = bench("data", "phantom", tmp_path / "x", "--grid", 40, 32, 32)
    assert wrong.code == 2
    assert "multiples of 16" in wrong.err
    assert not (tmp_path / "x").exists()


def marked() -> RawCase:
    """A scan stored front to back, feet first and in columns, with a bright front right top."""
    image = np.zeros((20, 30, 10), np.float32)  # (R, A, S)
    image[12:, 20:, 7:] = 1.0
    image[0, 0, 0] = 0.5
    label = np.zeros(image.shape, np.uint8)
    label[12:, 20:, 7:] = 1
    # Columns: the axes of (A, L, I) in a world of (R, A, S).
    affine = np.array([[0, -2.0, 0, 0], [1.0, 0, 0, 0], [0, 0, -5.0, 0], [0, 0, 0, 1]])
    stored = (image.transpose(1, 0, 2)[:, ::-1, ::-1], label.transpose(1, 0, 2)[:, ::-1, ::-1])
    return RawCase(np.ascontiguousarray(stored[0]), np.ascontiguousarray(stored[1]), affine)


def test_a_montage_has_millimetres_and_sides_right() -> None:
    figure = montage([Shown("a", marked())], {0: "background", 1: "mark"})
    figure.canvas.draw()
    assert [t.get_text().strip() for t in figure.texts] == ["axial", "coronal", "sagittal"]
    # In mm: right to left 40, front to back 30, feet to head 50.
    shapes = [axes.get_window_extent() for axes in figure.axes]
    ratios = [shape.width / shape.height for shape in shapes]
    assert ratios == pytest.approx([40 / 30, 40 / 50, 30 / 50], rel=0.02)
    for axes in figure.axes:
        pixels = np.asarray(axes.images[0].get_array())
        rows, columns = (size // 2 for size in pixels.shape)
        assert pixels[:rows, :columns].mean() > 0.3  # the right, or the front, is left, and up
        assert max(pixels[rows:].mean(), pixels[:, columns:].mean()) < 0.05
        (outline,) = (c for c in axes.collections if len(c.get_paths()))
        _, high = outline.get_paths()[0].get_extents().get_points()
        width, height = axes.get_xlim()[1], axes.get_ylim()[0]
        assert (high < 0.5 * np.array([width, height])).all()


def test_show_writes_a_picture(bench: Bench, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", n=4)
    out = tmp_path / "pictures/a.png"
    ran = bench("data", "show", folder, "--cases", 2, "--out", out)
    assert ran.code == 0, ran.err
    assert ran.out == f"case_000, case_003: {out}\n"
    with Image.open(out) as picture:
        colours = {c for _, c in picture.convert("RGB").getcolors(10**6)}
    assert {(0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00)} <= colours
    ran = bench("data", "show", folder, "--case", "case_01", "--out", out)
    assert ran.code == 2
    assert "did you mean case_00" in ran.err
    assert bench("data", "show", folder, "--out", tmp_path / "a.jpg").code == 2
    save(folder / "labelsTr/case_000.nii.gz", case(0)[1] * 9, AFFINE)
    assert "label values [9, 18]" in bench("data", "show", folder, "--out", out).err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with labels of both kinds, whose segmenters are not trained."""
    from bench.cells.execute import execute
    from bench.config import resolve
    from bench.harness import describe, plan_run
    from bench.registry import load_plugin

    load_plugin(TOYS)
    out = tmp_path_factory.mktemp("run") / "out"
    short = ["labeller.training.steps=1", "labeller.segmenter=toy-conv", "data.cases=10"]
    config = resolve(
        "quick",
        {"source": "phantom"},
        [*short, "scoring.synthetic=3", "device.accelerator=cpu"],
        "toy-plain,toy-joint",
        "none",
        {"seeds": (0,)},
    )
    plan = plan_run(config, [TOYS])
    store = Store(out)
    store.prepare_folder()
    for cell in plan.cells:
        store.add(cell)
        if cell.kind in ("prepare", "fit", "sample", "labeller", "label"):
            assert execute(store, cell.key, config.device) == "done", store.status(cell.key)
    (out / "run.json").write_text(json.dumps(describe(plan)))
    return out


def expected(run: Path, generator: str) -> VolumeSet:
    """The volumes as the cells left them, with the labels that arm S learns from."""
    store, known = Store(run), cells(run)
    drawn = VolumeSet.open(store.artefacts(known[f"sample {generator}"].key) / "synthetic")
    if generator == "toy-joint":
        return drawn
    return drawn.with_labels(store.artefacts(known[f"label {generator}"].key) / "labels.npy")


@pytest.mark.parametrize(("generator", "source"), [("toy-joint", "joint"), ("toy-plain", "pseudo")])
def test_a_decathlon_export_is_read_by_monai_and_by_ourselves(
    bench: Bench, run: Path, tmp_path: Path, generator: str, source: str
) -> None:
    from monai.data import load_decathlon_datalist
    from monai.transforms import LoadImaged

    to = tmp_path / "synthetic"
    ran = bench("export", run, generator, "--to", to)
    assert ran.code == 0, ran.err
    truth = expected(run, generator)
    listed = load_decathlon_datalist(str(to / "dataset.json"), data_list_key="training")
    assert len(listed) == len(truth)
    for i, entry in enumerate(listed):
        read = LoadImaged(keys=["image", "label"])(entry)
        np.testing.assert_array_equal(read["image"].numpy(), truth.image(i))
        np.testing.assert_array_equal(read["label"].numpy(), truth.label(i))
        np.testing.assert_allclose(read["image"].affine, truth.cases[i].affine, atol=1e-4)
    meta = json.loads((to / "dataset.json").read_text())
    assert meta["label_source"] == source
    assert f"Labels are {source}" in meta["description"]
    assert ("Nobody drew these labels" in ran.out) == (source == "pseudo")
    assert bench("data", "check", to, "--json").code in (0, 1)  # toys may draw empty labels
    again = bench("export", run, generator, "--to", to)
    assert again.code == 2
    assert "holds something already" in again.err


def test_an_nnunet_export_keeps_its_rules(bench: Bench, run: Path, tmp_path: Path) -> None:
    """As its documentation/dataset_format.md has them."""
    ran = bench("export", run, "toy-joint", "--format", "nnunet", "--to", tmp_path / "synthetic")
    assert ran.code == 2
    assert "Dataset501_Synthetic" in ran.err
    to = tmp_path / "Dataset501_Synthetic"
    assert bench("export", run, "toy-joint", "--format", "nnunet", "--to", to).code == 0
    truth = expected(run, "toy-joint")
    expect_nnunet(to, list(truth.ids), ["background", *list(LABEL_NAMES.values())[1:]])
    label = nib.load(to / f"labelsTr/{truth.ids[1]}.nii.gz")
    np.testing.assert_array_equal(np.asarray(label.dataobj), truth.label(1))


def expect_nnunet(folder: Path, ids: list[str], labels: list[str]) -> None:
    meta: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    assert meta["labels"] == {name: value for value, name in enumerate(labels)}
    assert list(meta["channel_names"]) == ["0"]
    assert meta["channel_names"]["0"].casefold() != "ct"
    assert (meta["numTraining"], meta["file_ending"]) == (len(ids), ".nii.gz")
    images = sorted(path.name for path in (folder / "imagesTr").iterdir())
    assert images == sorted(f"{id}_0000.nii.gz" for id in ids)
    assert sorted(p.name for p in (folder / "labelsTr").iterdir()) == sorted(
        f"{id}.nii.gz" for id in ids
    )
    for id in ids:
        image = nib.load(folder / f"imagesTr/{id}_0000.nii.gz")
        label = nib.load(folder / f"labelsTr/{id}.nii.gz")
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)
        values = np.asarray(label.dataobj)
        assert values.dtype.kind == "u"
        assert values.max() < len(labels)


def test_label_ids_with_gaps_become_consecutive_for_nnunet(tmp_path: Path) -> None:
    image, label = case(0)
    to = tmp_path / "Dataset001_x"
    names = {9: "vein", 0: "background", 4: "liver"}
    stored = np.array([0, 4, 9], np.uint8)[label]
    write_nnunet([ToWrite("a", image, stored, AFFINE)], to, names, {})
    expect_nnunet(to, ["a"], ["background", "liver", "vein"])
    written = np.asarray(nib.load(to / "labelsTr/a.nii.gz").dataobj)
    np.testing.assert_array_equal(written, label)
    with pytest.raises(InputError, match="case b has no label"):
        write_nnunet([ToWrite("b", image, None, AFFINE)], to, names, {})


def test_what_is_not_there_or_damaged_is_refused(bench: Bench, run: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run, tmp_path / "out"))
    to = ("--to", tmp_path / "to")
    assert "no generator 'ldm-vae'" in bench("export", out, "ldm-vae", *to).err
    assert "no seed 3" in bench("export", out, "toy-joint", "--seed", 3, *to).err
    store, known = Store(out), cells(out)
    labels = store.artefacts(known["label toy-plain"].key) / "labels.npy"
    content = bytearray(labels.read_bytes())
    content[-1] ^= 1
    labels.write_bytes(content)
    assert "bench validate --set-aside" in bench("export", out, "toy-plain", *to).err
    (labels.parents[1] / "result.json").unlink()
    told = bench("export", out, "toy-plain", *to)
    assert told.code == 2
    assert "'label toy-plain' of the run" in told.err
    assert not (tmp_path / "to").exists()

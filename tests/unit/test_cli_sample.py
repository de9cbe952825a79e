"""`bench sample`: volumes of a finished run, and images for label maps of one's own."""

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
from generator_cases import DIFFUSION, LLDM
from nifti_folders import ellipsoids, save

from bench.cells.execute import execute
from bench.config import resolve
from bench.datasets.config import DataConfig
from bench.datasets.given import read_given_labels
from bench.datasets.phantom import LABEL_NAMES
from bench.datasets.prepare import prepare_case
from bench.datasets.source import RawCase
from bench.device import Device
from bench.errors import InputError
from bench.harness import describe, plan_run
from bench.plan import Cell
from bench.registry import load_plugin
from bench.store import Store
from bench.volumes import VolumeSet, VolumeSetWriter

Bench = Callable[..., Ran]
GRID = (32, 32, 32)
COUNT = 3
# Long enough for images that depend on their noise and label.
TRAINING = {"steps": 6, "batch_size": 2, "learning_rate": 0.01, "ema_decay": 0}
DENOISING = {**DIFFUSION, "training": TRAINING}
MODEL = {
    **LLDM,
    "ldm": DENOISING,
    "label_ldm": DENOISING,
    "controlnet": {**LLDM["controlnet"], "training": {**TRAINING, "learning_rate": 0.1}},
    "cleaning": {"min_voxels": 2, "max_draws": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the phantom: 3d-lldm fitted and sampled, toy-joint not fitted at all."""
    load_plugin(TOYS)
    out = tmp_path_factory.mktemp("run") / "out"
    settings = [f"data.grid={list(GRID)}", "data.cases=10", f"scoring.synthetic={COUNT}"]
    settings += [f"generators.3d-lldm={json.dumps(MODEL)}", "device.accelerator=cpu"]
    config = resolve(
        "quick", {"source": "phantom"}, settings, "3d-lldm,toy-joint", "none", {"seeds": (0,)}
    )
    plan = plan_run(config, [TOYS])
    store = Store(out)
    store.prepare_folder()
    for cell in plan.cells:
        store.add(cell)
        mine = cell.kind in ("fit", "sample") and cell.tags.generator == "3d-lldm"
        if cell.kind == "prepare" or mine:
            assert execute(store, cell.key, config.device) == "done", store.status(cell.key)
    (out / "run.json").write_text(json.dumps(describe(plan)))
    return out


@pytest.fixture
def own(run: Path) -> VolumeSet:
    """What the run's own cell drew."""
    (found,) = run.glob("cells/*/artefacts/synthetic")
    return VolumeSet.open(found)


def refused(bench: Bench, *arguments: object) -> str:
    """Run, expect one line on stderr and code 2; returns the line."""
    ran = bench("sample", *arguments)
    assert ran.code == 2, ran.out + ran.err
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    return str(ran.err)


def same(a: VolumeSet, i: int, b: VolumeSet, k: int) -> bool:
    """Whether two volumes are the same, stored as they are in float16."""
    return bool(np.abs(a.image(i) - b.image(k)).max() < 1e-3) and bool(
        (a.label(i) == b.label(k)).all()
    )


def test_volume_i_is_the_runs_own(bench: Bench, run: Path, own: VolumeSet, tmp_path: Path) -> None:
    ran = bench(
        "sample", "3d-lldm", "--run", run, "--first", 1, "--count", 2, "--out", tmp_path / "s"
    )
    assert ran.code == 0, ran.err
    drawn = VolumeSet.open(tmp_path / "s")
    assert drawn.ids == own.ids[1:] == ("3d-lldm-0-00001", "3d-lldm-0-00002")
    assert drawn.cases[0].affine == own.cases[1].affine
    assert drawn.label_names == own.label_names
    assert same(drawn, 0, own, 1)
    assert same(drawn, 1, own, 2)
    assert not same(drawn, 0, own, 2)
    assert "share_rejected: " in ran.out
    more = bench("sample", "3d-lldm", "--run", run, "--first", COUNT, "--count", 1)
    assert more.code == 0  # beyond what the run drew, beside it by default
    assert VolumeSet.open(run / "samples" / "3d-lldm-0").ids == ("3d-lldm-0-00003",)
    assert "holds something already" in refused(bench, "3d-lldm", "--run", run)
    shutil.rmtree(run / "samples")


def test_own_labels_as_volume_set_and_as_nifti(
    bench: Bench, run: Path, own: VolumeSet, tmp_path: Path
) -> None:
    """The maps that the run drew, given back to it, give the images that it drew of them."""
    (synthetic,) = run.glob("cells/*/artefacts/synthetic")
    first = tmp_path / "first"
    ran = bench("sample", "3d-lldm", "--run", run, "--labels", synthetic, "--nifti", "--out", first)
    assert ran.code == 0, ran.err
    drawn = VolumeSet.open(first)
    assert drawn.provenance["labels"] == "given"
    assert all(same(drawn, i, own, i) for i in range(COUNT))
    assert drawn.cases[1].source == {"label": own.ids[1]}
    # The NIfTI files that it left are label maps again, by name and with their place.
    second = tmp_path / "second"
    arguments = ("--labels", first / "nifti", "--out", second, "--count", COUNT + 1)
    assert bench("sample", "3d-lldm", "--run", run, *arguments).code == 0
    again = VolumeSet.open(second)
    assert all(same(again, i, own, i) for i in range(COUNT))
    np.testing.assert_allclose(again.cases[2].affine, own.cases[2].affine)
    # One more than there are maps: the first of them with other noise.
    assert (again.label(COUNT) == own.label(0)).all()
    assert np.abs(again.image(COUNT) - own.image(0)).max() > 0.05
    # The noise of one volume with the map of another.
    other = ("--labels", synthetic, "--out", tmp_path / "third", "--count", 1, "--first", 1)
    assert bench("sample", "3d-lldm", "--run", run, *other).code == 0
    crossed = VolumeSet.open(tmp_path / "third")
    assert (crossed.label(0) == own.label(0)).all()
    assert np.abs(crossed.image(0) - own.image(1)).max() > 0.005
    assert np.abs(crossed.image(0) - own.image(0)).max() > 0.05


def test_settings_of_sampling_change_the_volumes_and_others_are_refused(
    bench: Bench, run: Path, own: VolumeSet, tmp_path: Path
) -> None:
    one = ("3d-lldm", "--run", run, "--count", 1)
    ran = bench("sample", *one, "--out", tmp_path / "s", "--set", "sampling.steps=1")
    assert ran.code == 0, ran.err
    drawn = VolumeSet.open(tmp_path / "s")
    assert drawn.provenance["config"]["sampling"]["steps"] == 1
    assert (drawn.label(0) == own.label(0)).all()
    assert (drawn.image(0) != own.image(0)).any()
    for setting, message in {
        "ldm.training.steps=9": "'image-ldm' of 3d-lldm was fitted with training.steps = 6, asked",
        "controlnet.condition=latent": "'controlnet'",
        "label_autoencoder.latent_channels=4": "latent_channels = 3, asked is 4",
        "sampling.steps=100000": "sampling.steps is 100000",
        "sampling.stepz=3": "Unknown key 'sampling.stepz'",
        "cleaning.organ=spleen": "'spleen'",
        "device.accelerator=abacus": "accelerator in device is 'abacus'",
    }.items():
        assert message in refused(bench, *one, "--out", tmp_path / "no", "--set", setting)
    assert not (tmp_path / "no").exists()


def test_what_the_run_does_not_have_is_named(bench: Bench, run: Path, tmp_path: Path) -> None:
    assert "holds no run" in refused(bench, "3d-lldm", "--run", tmp_path)
    told = refused(bench, "ldm-vae", "--run", run)
    assert "no generator 'ldm-vae'" in told
    assert "3d-lldm" in told
    assert "no seed 7" in refused(bench, "3d-lldm", "--run", run, "--seed", 7)
    told = refused(bench, "toy-joint", "--run", run)
    assert "'fit toy-joint fit' of the run" in told
    assert "waiting" in told
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    full = ("--out", tmp_path / "full")
    assert "holds something already" in refused(bench, "3d-lldm", "--run", run, *full)


def test_a_fit_that_is_damaged_or_of_another_version_is_refused(
    bench: Bench, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from generators.lldm import LLDM3D

    out = Path(shutil.copytree(run, tmp_path / "out"))
    one = ("3d-lldm", "--run", out, "--count", 1)
    with monkeypatch.context() as patch:
        patch.setattr(LLDM3D, "version", "99")
        assert "installed is '99'" in refused(bench, *one)
    cells = map(Cell.from_json, json.loads((out / "run.json").read_text())["cells"])
    fit = next(cell for cell in cells if cell.title == "fit 3d-lldm controlnet")
    state = Store(out).artefacts(fit.key) / "state.pt"
    state.write_bytes(state.read_bytes()[:-10])
    told = refused(bench, *one)
    assert "state.pt has " in told
    assert "bench validate --set-aside" in told
    (state.parents[1] / "result.json").unlink()
    assert "'fit 3d-lldm controlnet' of the run" in refused(bench, *one)


def test_generators_without_a_way_to_take_labels_refuse_them(
    bench: Bench, run: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(run, tmp_path / "out"))
    load_plugin(TOYS)
    cells = map(Cell.from_json, json.loads((out / "run.json").read_text())["cells"])
    toy = next(cell for cell in cells if cell.title == "fit toy-joint fit")
    assert execute(Store(out), toy.key, Device(accelerator="cpu")) == "done"
    maps = next(out.glob("cells/*/artefacts/synthetic"))
    told = refused(bench, "toy-joint", "--run", out, "--labels", maps)
    assert "'toy-joint' draws no images for given label maps" in told
    assert bench("sample", "toy-joint", "--run", out, "--count", 2).code == 0
    assert len(VolumeSet.open(out / "samples" / "toy-joint-0")) == 2


def test_label_maps_that_do_not_fit_are_named(bench: Bench, run: Path, tmp_path: Path) -> None:
    one = ("3d-lldm", "--run", run, "--out", tmp_path / "no", "--labels")

    def volume_set(name: str, grid: tuple[int, int, int], names: dict[int, str]) -> Path:
        label = np.zeros(grid, dtype=np.uint8)
        label[4:9, 4:9, 4:9] = max(names)
        with VolumeSetWriter(tmp_path / name, grid, names) as writer:
            writer.append("case", np.zeros(grid), label)
        return tmp_path / name

    told = refused(bench, *one, volume_set("coarse", (16, 32, 32), dict(LABEL_NAMES)))
    assert "(16, 32, 32)" in told
    assert "(32, 32, 32)" in told
    told = refused(bench, *one, volume_set("other", GRID, {0: "background", 2: "spleen"}))
    assert "2 (spleen)" in told
    save(tmp_path / "nifti" / "a.nii.gz", np.full(GRID, 9, dtype=np.uint8), np.eye(4))
    assert "label map a has the labels 9" in refused(bench, *one, tmp_path / "nifti")
    save(tmp_path / "shape" / "b.nii.gz", np.ones((30, 32, 32), dtype=np.uint8), np.eye(4))
    told = refused(bench, *one, tmp_path / "shape")
    assert "(30, 32, 32)" in told
    save(tmp_path / "empty" / "c.nii", np.zeros(GRID, dtype=np.uint8), np.eye(4))
    assert "c is background everywhere" in refused(bench, *one, tmp_path / "empty")
    assert "no label maps" in refused(bench, *one, tmp_path / "nowhere")
    assert not (tmp_path / "no").exists()


def test_values_go_by_their_names_and_maps_are_turned(tmp_path: Path) -> None:
    """A map stored left to right with other ids, in a folder that names them."""
    names = {0: "background", 3: "organ", 7: "vein"}
    label = np.zeros(GRID, dtype=np.uint8)
    label[3:20, 8:20, 8:20], label[10, 10, 10] = 2, 1
    save(tmp_path / "set" / "labelsTr" / "x.nii.gz", label, np.diag([-1.0, 1, 1, 1]))
    (tmp_path / "set" / "dataset.json").write_text(
        json.dumps({"labels": {"1": "vein", "2": "organ"}})
    )
    data = DataConfig(source="elsewhere", grid=GRID)
    given = read_given_labels(tmp_path / "set", data, names, tmp_path / "maps.npy")
    assert given.ids == ("x",)
    np.testing.assert_array_equal(given.maps[0], np.array([0, 7, 3])[label][::-1])
    turned = nib.as_closest_canonical(nib.load(tmp_path / "set" / "labelsTr" / "x.nii.gz"))
    np.testing.assert_allclose(given.affines[0], turned.affine)


def test_maps_on_another_grid_are_prepared_as_the_runs_cases_were(tmp_path: Path) -> None:
    names = {0: "background", 1: "big", 2: "small"}
    label, affine = ellipsoids((30, 36, 24)), np.diag([1.5, 1.0, 2.0, 1.0])
    save(tmp_path / "one.nii.gz", label, affine)
    data = DataConfig(source="elsewhere", grid=GRID)
    given = read_given_labels(tmp_path / "one.nii.gz", data, names, tmp_path / "maps.npy")
    image = np.random.default_rng(0).normal(size=label.shape).astype(np.float32)
    case: Any = prepare_case(RawCase(image, label, affine), data)
    np.testing.assert_array_equal(given.maps[0], case.label)
    np.testing.assert_allclose(given.affines[0], case.affine)
    with VolumeSetWriter(tmp_path / "bare", GRID, names) as writer:
        writer.append("case", np.zeros(GRID))
    with pytest.raises(InputError, match="no labels"):
        read_given_labels(tmp_path / "bare", data, names, tmp_path / "maps.npy")


def test_help_shows_an_example(bench: Bench) -> None:
    ran = bench("sample", "--help")
    assert ran.code == 0
    assert "bench sample 3d-lldm --run" in " ".join(ran.out.replace("│", " ").split())

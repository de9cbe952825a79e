"""The command line: what it lists, and that bad input is one sentence and exit code 2."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import TOYS, Ran, finish
from nifti_folders import case, edit, save, write_folder

Bench = Callable[..., Ran]
AFFINE = np.diag([1.5, 1.0, 2.0, 1.0])
IMAGE = "imagesTr/case_001.nii.gz"
LABEL = "labelsTr/case_001.nii.gz"
TINY = [
    *("--generators", "none", "--segmenters", "unet", "--set", "segmenters.unet.channels=[4,8]"),
    *("--set", "data.cases=null", "--set", "data.grid=[32,32,32]"),
    *("--set", "segmentation.training.steps=1"),
]


HELD_OUT = ["--set", "data.holdout=0.1"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "ellipsoids", n=4)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original, tmp_path / "ellipsoids"))


def refuse(bench: Bench, out: Path, *arguments: object) -> str:
    """Run, expect one line on stderr, code 2 and no OUT; returns the line."""
    ran = bench("run", "--out", out, *TINY, *arguments)
    assert ran.code == 2
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.startswith("bench: ")
    assert "Traceback" not in ran.out + ran.err
    assert not out.exists()
    return ran.err


def image(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    save(folder / IMAGE, change(case(1)[0]), AFFINE)


def label(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    save(folder / LABEL, change(case(1)[1]), AFFINE)


def truncate(folder: Path) -> None:
    (folder / IMAGE).write_bytes((folder / IMAGE).read_bytes()[:-1000])


def set_nan(voxels: np.ndarray) -> np.ndarray:
    voxels[3, 3, 3] = np.nan
    return voxels


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing image": (lambda f: (f / IMAGE).unlink(), IMAGE),
    "missing label": (lambda f: (f / LABEL).unlink(), LABEL),
    "corrupt image": (lambda f: (f / IMAGE).write_bytes(b"no NIfTI\n at all"), IMAGE),
    "truncated image": (truncate, IMAGE),
    "other shape": (lambda f: label(f, lambda v: v[:-1]), LABEL),
    "other affine": (lambda f: save(f / LABEL, case(1)[1], np.eye(4)), LABEL),
    "undeclared label": (lambda f: label(f, lambda v: v * 3), LABEL),
    "fractional label": (lambda f: label(f, lambda v: (v * 0.5).astype(np.float32)), LABEL),
    "all background": (lambda f: label(f, lambda v: v * 0), LABEL),
    "NaN": (lambda f: image(f, set_nan), IMAGE),
    "constant": (lambda f: image(f, lambda v: v * 0 + 7), IMAGE),
    "4D": (lambda f: image(f, lambda v: np.stack([v, v], axis=-1)), IMAGE),
    "2D": (lambda f: image(f, lambda v: v[..., 0]), IMAGE),
    "too few cases": (
        lambda f: edit(f, {"training": [{"image": IMAGE, "label": LABEL}]}),
        "too few",
    ),
    "no cases": (lambda f: edit(f, {"training": []}), "training"),
    "no labels": (lambda f: edit(f, {"labels": None}), "labels"),
    "no dataset.json": (lambda f: (f / "dataset.json").unlink(), "dataset.json"),
    "bad dataset.json": (lambda f: (f / "dataset.json").write_text("{\n"), "dataset.json"),
    "a way out": (
        lambda f: edit(f, {"training": [{"image": "../x.nii.gz", "label": LABEL}] * 3}),
        "../x.nii.gz",
    ),
    "an image twice": (
        lambda f: shutil.copy(f / "imagesTr/case_000.nii.gz", f / IMAGE),
        "case_000 and case_001",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_data_set_is_named(bench: Bench, folder: Path, tmp_path: Path, fault: str) -> None:
    damage, named = BROKEN[fault]
    damage(folder)
    assert named in refuse(bench, tmp_path / "out", "--data", folder)


def test_a_broken_data_set_leaves_another_runs_folder_alone(
    bench: Bench, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "cells" / "other").mkdir(parents=True)
    (out / "mine.txt").write_text("kept")
    image(folder, set_nan)
    assert bench("run", "--out", out, *TINY, "--data", folder).code == 2
    assert sorted(p.name for p in out.rglob("*")) == ["cells", "mine.txt", "other"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--preset", "qick"], "no preset 'qick': did you mean quick"),
        (["--set", "data.csaes=20"], "data.csaes"),
        (["--set", "data.cases"], "--set takes key=value"),
        (["--set", "segmenters.unet.channels=narrow"], "segmenters.unet is 'narrow'"),
        (["--segmenters", "unett"], "'unett': did you mean unet"),
        (["--generators", "3d-dpm"], "'3d-dpm': did you mean 3d-ddpm"),
        (["--plugin", "nowhere.py"], "nowhere.py does not exist"),
        (["--set", "data.grid=[31, 32, 32]"], "(31, 32, 32)"),
        (["--set", "segmenters.unet.channels=[4,4,4,4,4,4]"], "unet cannot take the grid 32x32x32"),
        (["--data", "nowhere"], "'nowhere'"),
        (["--data", "nowhere.yaml"], "nowhere.yaml"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--tasks", "liver"], "'liver'"),
        (["--real", "4,many"], "'many'"),
        (["--real", "4000"], "--real 4000"),
        (["--ratio", "-1"], "--ratio -1"),
        (["--seeds", "1.5"], "'1.5'"),
        (["--seeds", "-3"], "-3"),
        (["--segmenters", "none"], "Nothing to do"),
        (["--set", "data.cases=2"], "data.cases"),
        (["--set", "data.spacing=[1, 1, 1]"], "data.spacing"),
        (["--set", "labeller.segmenter=unett", "--generators", "toy-plain"], "'unett'"),
        (["--set", "data.cases=4", "--generators", "toy-plain"], "FID needs at least 2"),
        (  # of a segmenter that is also among --segmenters
            ["--set", "labeller.config.bogus=1", "--generators", "toy-plain"],
            "Unknown key 'bogus' in labeller.config",
        ),
        (
            ["--set", "labeller.config.channels=[4,4,4,4,4,4]", "--generators", "toy-plain"],
            "unet cannot take the grid 32x32x32",
        ),
        (  # with one held-out case, no label is another case's
            ["--generators", "mislabelled", "--set", "data.cases=10", *HELD_OUT],
            "data.holdout 0.1 of phantom leaves 1",
        ),
    ],
)
def test_a_bad_argument_is_named(
    bench: Bench, tmp_path: Path, arguments: list[str], named: str
) -> None:
    assert named in refuse(bench, tmp_path / "out", "--plugin", TOYS, *arguments)


@pytest.mark.parametrize("kind", ["garbage", "wrong network", "pickle"])
def test_weights_of_another_network_are_refused(bench: Bench, tmp_path: Path, kind: str) -> None:
    import torch

    weights = tmp_path / "resnet_50.pth"
    if kind == "garbage":
        weights.write_bytes(b"no weights")
    if kind == "wrong network":
        torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}}, weights)
    if kind == "pickle":
        torch.save({"state_dict": Path}, weights)
    assert str(weights) in refuse(bench, tmp_path / "out", "--weights", weights)


def test_an_out_that_cannot_be_written_is_named(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert str(out) in refuse(bench, out, "--set", "data.cases=4")
    assert (tmp_path / "file").read_text() == ""
    ran = bench("run", "--out", tmp_path / "file", *TINY, "--set", "data.cases=4")
    assert ran.code == 2
    assert ran.err.count("\n") == 1


def test_two_bad_inputs_in_a_process_of_their_own(
    spawn: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    image(folder, set_nan)
    for arguments, named in ((["--data", folder], IMAGE), (["--preset", "papr"], "'papr'")):
        ran = finish(spawn("run", "--out", tmp_path / "out", *TINY, *arguments))
        assert ran.code == 2
        assert ran.err.startswith("bench: ")
        assert ran.err.count("\n") == 1
        assert named in ran.err
        assert not (tmp_path / "out").exists()


def test_usage_errors_are_code_2(bench: Bench) -> None:
    for arguments in (["run", "--bogus"], ["bogus"], ["status"], ["report"]):
        assert bench(*arguments).code == 2


def test_a_folder_without_a_run_is_named(bench: Bench, tmp_path: Path) -> None:
    for command in ("status", "report"):
        ran = bench(command, tmp_path)
        assert ran.code == 2
        assert str(tmp_path) in ran.err
        assert list(tmp_path.iterdir()) == []


def test_dry_run_shows_the_plan_and_writes_nothing(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--generators", "toy-plain", "--plugin", TOYS, "--tasks", "liver-only"]
    ran = bench("run", "--dry-run", "--out", out, *TINY, *arguments)
    assert ran.code == 0
    assert list(tmp_path.iterdir()) == []
    counts = {
        parts[1]: parts[3] for line in ran.out.splitlines() if len(parts := line.split()) == 7
    }
    assert counts == {
        "prepare": "1",
        "features": "6",
        "score": "2",
        "task-score": "2",
        "memorise": "1",
        "task-memorise": "1",
        "diversity": "2",
        "structures": "2",
        "fidelity": "1",
        "segment": "2",
        "fit": "1",
        "sample": "1",
        "labeller": "1",
        "label": "1",
    }
    assert "liver-only" in ran.out
    assert "vein-only" not in ran.out


POINTWISE = """
from bench import register_segmenter
from torch import nn


class Linear(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(1, classes)

    def forward(self, x):
        return self.layer(x.movedim(1, -1)).movedim(-1, 1)


@register_segmenter("pointwise")
def pointwise(inputs, outputs, size, config):
    print(f"built for {outputs} channels")
    return Linear(outputs)
"""


def test_the_labeller_is_checked_as_what_it_will_be(bench: Bench, tmp_path: Path) -> None:
    """With a channel for every label, and 3D convolutions where task features are asked for."""
    path = tmp_path / "pointwise.py"
    path.write_text(POINTWISE)
    out = tmp_path / "out"
    labeller = ["--set", "labeller.segmenter=pointwise", "--generators", "toy-plain"]
    arguments = ["run", "--dry-run", *TINY, "--plugin", TOYS, "--plugin", path, "--out", out]
    arguments = [*arguments, *labeller]
    refused = bench(*arguments)
    assert refused.code == 2
    assert "'pointwise' has no 3D convolutions" in refused.err
    assert "set scoring.task_features=false" in refused.err
    ran = bench(*arguments, "--set", "scoring.task_features=false")
    assert ran.code == 0, ran.err
    built = [line for line in ran.out.splitlines() if line.startswith("built")]
    assert built == ["built for 5 channels"]


@pytest.mark.parametrize(
    ("generators", "settings", "held", "note"),
    [
        ("oracle", {"data.holdout": 0.2, "scoring.synthetic": 3}, ", 2 held-out cases;", True),
        ("oracle", {"data.holdout": 0.2}, ", 2 held-out cases;", False),  # two are scored
        ("copycat", {"data.holdout": 0.2, "scoring.synthetic": 3}, ", 2 held-out cases;", False),
        ("oracle", {"scoring.synthetic": 3}, " 2 test cases;", False),  # fresh phantoms
    ],
)
def test_a_run_says_first_what_is_held_out_and_whether_it_repeats(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    generators: str,
    settings: dict[str, float],
    held: str,
    note: bool,
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.cli.go.start", stop)
    settings = {"data.cases": 10, **settings}
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    ran = bench("run", "--out", tmp_path / "out", *TINY, "--generators", generators, *given)
    assert ran.code == 130, ran.err
    assert held in ran.out
    sentence = "The 3 scored volumes of oracle are made of only 2 held-out cases"
    assert (sentence in ran.out) == note


def test_help_names_every_kind_of_plugin_and_the_controls(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    told = " ".join(bench("run", "--help").out.split())
    assert '"all", "none", "controls", or names' in told
    assert "a generator, segmenter or extractor" in told
    assert "The extractor's file of weights" in told


def test_list_shows_plugins_of_files_and_what_they_take(bench: Bench) -> None:
    ran = bench("list", "--plugin", TOYS)
    assert ran.code == 0
    for name in ("toy-plain", "toy-conv", "unet", "ha-gan", "phantom", "quick"):
        assert name in ran.out
    one = bench("list", "toy-plain", "--plugin", TOYS)
    assert "fault:" in one.out
    assert "# what goes wrong" in one.out
    assert "steps: 10" in bench("list", "quick").out
    assert "checkpoint_minutes: 10.0" in bench("list", "run").out
    assert "dropout: 0.0" in bench("list", "unet").out
    wrong = bench("list", "unett")
    assert wrong.code == 2
    assert "did you mean unet" in wrong.err


def test_list_escapes_what_looks_like_markup(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text(
        '"""Odd [/red] text in [bold]."""\n'
        "from bench import register_segmenter\n"
        "register_segmenter('odd')(lambda *a: None)\n"
    )
    ran = bench("list", "segmenters", "--plugin", path)
    assert ran.code == 0
    assert "[/red]" in ran.out
    assert "[bold]" in ran.out


def test_a_data_sets_own_name_cannot_lead_out_of_runs(
    bench: Bench, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edit(folder, {"name": "../../elsewhere [red]"})
    ran = bench("run", "--dry-run", "--data", folder, *TINY)
    assert ran.code == 0
    assert "runs/..-..-elsewhere-red--quick" in "".join(ran.out.split())


def test_nifti_scaling_is_no_fault(bench: Bench, folder: Path, tmp_path: Path) -> None:
    """A valid folder passes: the refusals above are of their faults."""
    stored = nib.Nifti1Image(case(1)[0], AFFINE)
    stored.header.set_data_dtype(np.int16)
    nib.save(stored, folder / IMAGE)
    ran = bench("run", "--out", tmp_path / "out", *TINY, "--data", folder, "--tasks", "foreground")
    assert ran.code == 0, ran.err
    assert (tmp_path / "out" / "leaderboard" / "leaderboard.md").is_file()

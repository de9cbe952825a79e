"""A stranger's distribution, installed with pip, and the same models as plug-in files."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ran, finish

PACKAGE = Path(__file__).resolve().parents[1] / "plugin_package"
SOURCES = PACKAGE / "voxelbench_example_plugin"
TINY = [
    *("run", "--generators", "example-pca", "--tasks", "hcc-only"),
    *("--set", "data.cases=10", "--set", "segmentation.training.steps=2"),
    *("--set", "segmenters.unet.channels=[4,8]", "--segmenters", "example-conv,unet"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    options = ["--no-build-isolation", "--target", str(target), str(PACKAGE)]
    ran = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return target


def generators_and_segmenters(out: Path) -> tuple[set[str], set[tuple[str, str]]]:
    """Generators of Table 1, (generator, segmenter) of Table 2, with a number in each row."""
    tables = []
    for name in ("generators", "segmentation"):
        with (out / "leaderboard" / f"{name}.csv").open(newline="") as stream:
            tables.append(list(csv.DictReader(stream)))
    for row in tables[0]:
        assert float(row["fid_average"]) > 0
    for row in tables[1]:
        assert 0 <= float(row["dice_r"]) <= 1
        assert 0 <= float(row["dice_rs"]) <= 1
    return (
        {row["generator"] for row in tables[0]},
        {(row["generator"], row["segmenter"]) for row in tables[1]},
    )


@pytest.mark.slow
def test_an_installed_package_is_listed_and_runs(
    spawn: Callable[..., subprocess.Popen[str]], installed: Path, tmp_path: Path
) -> None:
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    listed = finish(spawn("list", PYTHONPATH=path))
    assert listed.code == 0
    for name in ("example-pca", "example-conv"):
        row = next(line for line in listed.out.splitlines() if line.startswith(name))
        assert row.endswith("voxelbench-example-plugin 0.1.0")
    ran = finish(spawn(*TINY, "--out", tmp_path / "out", PYTHONPATH=path))
    assert ran.code == 0, ran.out + ran.err
    assert "example-pca" in ran.out
    generators, segmenters = generators_and_segmenters(tmp_path / "out")
    assert generators >= {"example-pca"}
    assert segmenters == {("example-pca", "example-conv"), ("example-pca", "unet")}


def test_the_same_files_serve_as_plugin_files(bench: Callable[..., Ran], tmp_path: Path) -> None:
    files = ["--plugin", SOURCES / "pca.py", "--plugin", SOURCES / "conv.py"]
    ran = bench(*TINY, *files, "--out", tmp_path / "out")
    assert ran.code == 0, ran.out + ran.err
    generators, segmenters = generators_and_segmenters(tmp_path / "out")
    assert generators >= {"example-pca"}
    assert segmenters == {("example-pca", "example-conv"), ("example-pca", "unet")}


def test_without_the_package_its_names_are_unknown(bench: Callable[..., Ran]) -> None:
    ran = bench(*TINY, "--dry-run")
    assert ran.code == 2
    assert "example-pca" in ran.err


def test_the_model_spans_its_training_volumes(tmp_path: Path) -> None:
    """Samples vary about the mean as the training volumes do, and their labels are real ones."""
    import numpy as np

    from bench import Run, VolumeSetWriter
    from bench.device import Device
    from bench.registry import GENERATORS, load_plugin

    draw = np.random.default_rng(0)
    grid, directions = (4, 4, 4), draw.normal(size=(2, 4, 4, 4)) * 0.02
    with VolumeSetWriter(tmp_path / "set", grid, {0: "background", 1: "a"}, dtype="float32") as w:
        for i in range(60):
            image = 0.5 + np.tensordot(draw.normal(size=2), directions, 1)
            w.append(f"case-{i}", image.clip(0, 1), (image > 0.5).astype(np.uint8))
    from bench import VolumeSet

    train = VolumeSet.open(tmp_path / "set")
    load_plugin(SOURCES / "pca.py")
    plugin = GENERATORS.get("example-pca")
    model = plugin(plugin.Config(components=2))
    run = Run(0, tmp_path, grid, train.label_names, Device(accelerator="cpu"))
    state = model.fit(train, train, run)
    variance = np.cov(train.images().reshape(60, -1).T)
    known = np.linalg.eigvalsh(variance)[::-1][:2]
    assert state["deviation"].numpy() ** 2 == pytest.approx(known, rel=1e-3)

    import torch

    torch.save(state, tmp_path / "state.pt")
    run = Run(
        0,
        tmp_path,
        grid,
        train.label_names,
        Device(accelerator="cpu"),
        {"fit": tmp_path / "state.pt"},
    )
    samples = list(model.sample(range(300), run))
    drawn = np.linalg.eigvalsh(np.cov(np.stack([s.image.ravel() for s in samples]).T))[::-1]
    assert drawn[:2] == pytest.approx(known, rel=0.35)
    assert drawn[2] < known[1] * 0.01
    real = {label.tobytes() for label in train.labels()}
    assert {s.label.tobytes() for s in samples if s.label is not None} <= real
    again = next(model.sample([7], run))
    assert np.array_equal(again.image, samples[7].image)

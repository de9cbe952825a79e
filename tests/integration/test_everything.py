"""The README's job: every built-in generator and segmenter, every task, both tables."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TOYS, Ran

from bench.presets import FOLDER

Bench = Callable[..., Ran]
GENERATORS = ["ha-gan", "3d-ddpm", "ldm-vqvae", "ldm-vae", "3d-lldm"]
SEGMENTERS = ["unet", "resunet", "wideresunet", "dynunet", "vnet"]
STEPS = 1
HIPPOCAMPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "msd-hippocampus"


def shortest(values: Any) -> Any:
    """The preset with few steps in every fit: its networks and its path, not its length."""
    if not isinstance(values, dict):
        return values
    short = {key: shortest(value) for key, value in values.items()}
    return short | ({"steps": STEPS} if "steps" in values else {})


def settings(preset: str) -> list[str]:
    """--set options that make every fit of a preset a few steps long."""
    values = yaml.safe_load((FOLDER / f"{preset}.yaml").read_text(encoding="utf-8"))
    kept = ("generators", "segmentation", "labeller")
    return [
        part
        for key in kept
        for part in (
            "--set",
            f"{key}={yaml.safe_dump(shortest(values[key]), default_flow_style=True)}",
        )
    ]


def table(out: Path, name: str) -> list[dict[str, str]]:
    with (out / "leaderboard" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def expect_whole_tables(out: Path, tasks: list[str]) -> None:
    """Every row of the paper's two tables is there and measured."""
    realism = {row["generator"]: row for row in table(out, "generators")}
    assert list(realism) == [*GENERATORS, "real"]
    for name, row in realism.items():
        assert float(row["fid_average"]) == pytest.approx(
            sum(float(row[f"fid_{p}"]) for p in ("axial", "sagittal", "coronal")) / 3
        )
        assert row["extractor"] == "texture"
        assert row["label_source"] == {"3d-lldm": "native", "real": "real"}.get(name, "pseudo")
    rows = table(out, "segmentation")
    found = {(row["generator"], row["segmenter"], row["task"]) for row in rows}
    assert found == {(g, s, t) for g in GENERATORS for s in SEGMENTERS for t in tasks}
    assert {row["status"] for row in rows} == {"done"}
    for row in rows:
        assert 0 <= float(row["dice_r"]) <= 1
        assert 0 <= float(row["dice_rs"]) <= 1
    page = (out / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    assert "28.31" in page, "the published FID of 3D-LLDM stands beside ours"
    assert page.count("Overall mean") >= len(GENERATORS)


@pytest.mark.slow
def test_all_generators_and_segmenters_on_the_phantom(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["run", "--out", out, *settings("quick"), "--set", "data.cases=8"]
    ran = bench(*command)
    assert ran.code == 0, ran.err
    expect_whole_tables(out, ["liver-only", "vein-only", "hcc-only", "multi-class"])

    before = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*")}
    assert bench(*command).code == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*")} == before


@pytest.mark.slow
@pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="shared/data/msd-hippocampus is not here")
def test_all_generators_on_real_volumes(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = bench(
        *("run", "--data", HIPPOCAMPUS, "--out", out, "--segmenters", "unet", *settings("quick")),
        *("--set", "data.cases=12", "--set", "data.grid=[32,48,32]"),
    )
    assert ran.code == 0, ran.err
    rows = table(out, "segmentation")
    assert {row["task"] for row in rows} == {
        *("foreground", "anterior-only", "posterior-only", "multi-class"),
    }
    assert {row["status"] for row in rows} == {"done"}


@pytest.mark.slow
def test_medicalnet_weights_are_used_and_named(bench: Bench, tmp_path: Path) -> None:
    """A file of the true form with random numbers: the path is real, the FID means nothing."""
    import torch

    from bench.checksums import sha256
    from metrics.extractors.medicalnet import medicalnet_resnet50

    torch.manual_seed(0)
    weights = tmp_path / "resnet_50_23dataset.pth"
    state = {f"module.{name}": value for name, value in medicalnet_resnet50().state_dict().items()}
    torch.save({"state_dict": state}, weights)
    out = tmp_path / "out"
    ran = bench(
        *("run", "--plugin", TOYS, "--generators", "toy-plain", "--segmenters", "none"),
        *("--set", "data.cases=10", "--weights", weights, "--out", out),
    )
    assert ran.code == 0, ran.err
    rows = table(out, "generators")
    assert {row["extractor"] for row in rows} == {"medicalnet-resnet50"}
    assert {row["extractor_sha256"] for row in rows} == {sha256(weights)}
    assert sha256(weights)[:12] in (out / "leaderboard" / "leaderboard.md").read_text("utf-8")

"""The README's own plug-ins run as they stand there."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Ran

TINY = ("--set", "data.cases=10", "--tasks", "liver-only", "--set", "segmentation.training.steps=1")


def example(tmp_path: Path, decorator: str) -> Path:
    """The Python block of the README that uses `decorator`, as a file."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    path = tmp_path / "example.py"
    path.write_text(next(b for b in blocks if decorator in b), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_example_plugins_pass_the_check_and_run(
    bench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "g").mkdir()
    generator = example(tmp_path / "g", "@register_generator")
    segmenter = example(tmp_path, "@register_segmenter")
    monkeypatch.setattr("bench.contract.process.START", "forkserver")  # faster
    checked = bench("check", generator, segmenter)
    assert checked.code == 0, checked.out
    out = tmp_path / "out"
    ran = bench(
        *("run", "--plugin", generator, "--plugin", segmenter, "--out", out, *TINY),
        *("--generators", "pca", "--segmenters", "basic-unet"),
        *("--set", "labeller.training.steps=1"),
    )
    assert ran.code == 0, ran.out + ran.err
    with (out / "leaderboard" / "segmentation.csv").open(encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    assert (row["generator"], row["segmenter"], row["status"]) == ("pca", "basic-unet", "done")


@pytest.mark.slow
def test_a_changed_plugin_file_is_a_new_model(bench: Callable[..., Ran], tmp_path: Path) -> None:
    path = example(tmp_path, "@register_generator")
    out = tmp_path / "out"
    command = ("run", "--plugin", path, "--generators", "pca", "--segmenters", "none", "--out", out)
    seen = []
    for edit in ("", "# edited\n"):
        path.write_text(path.read_text(encoding="utf-8") + edit, encoding="utf-8")
        assert bench(*command, *TINY, "--set", "labeller.training.steps=1").code == 0
        seen.append(len(list((out / "cells").iterdir())))
    # Its fit, samples and labels; features and scores on two extractors; memorisation on both,
    # diversity and structures.
    assert seen[1] == seen[0] + 3 + 4 + 4

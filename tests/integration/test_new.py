"""`bench new`: what it writes passes `bench check`, runs, and learns."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Ran

from bench.device import Device
from bench.registry import GENERATORS, load_plugin
from bench.run import Run, seed_globals
from bench.templates import write_plugin

Bench = Callable[..., Ran]
TINY = [
    *("--set", "data.cases=10", "--tasks", "liver-only", "--set", "segmentation.training.steps=1"),
    *("--set", "labeller.training.steps=1", "--set", "labeller.config.channels=[4,8]"),
    *("--set", "scoring.task_features=false"),
]


@pytest.mark.slow
def test_both_templates_pass_the_check_and_run(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = bench("new", "generator", "dream-1.2")
    assert made.code == 0
    assert "bench check dream_1_2.py" in made.out
    assert bench("new", "segmenter", "my-net", "--out", "nets").code == 0
    files = ["dream_1_2.py", "nets/my_net.py"]
    checked = bench("check", *files, "--set", "width=4")  # of both
    assert checked.code == 0, checked.out
    assert checked.out.count("0 are not") == 2
    assert "skip" not in checked.out

    names = ["--generators", "dream-1.2", "--segmenters", "my-net"]
    few = ["--set", "generators.dream-1.2.training.steps=3", *TINY, "--out", "out"]
    ran = bench("run", "--plugin", files[0], "--plugin", files[1], *names, *few)
    assert ran.code == 0, ran.out + ran.err
    with Path("out/leaderboard/segmentation.csv").open(encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    assert (row["generator"], row["segmenter"], row["status"]) == ("dream-1.2", "my-net", "done")


def test_the_generator_learns(tmp_path: Path) -> None:
    """It knows more of the cases than their mean image, and its volumes differ."""
    from bench.contract.small import small_sets
    from bench.disk import save_tensors

    load_plugin(write_plugin("generator", "learner", tmp_path))
    train = small_sets(tmp_path, (32, 32, 32)).part("train")
    plugin = GENERATORS.get("learner")
    training = {"steps": 60, "batch_size": 4, "learning_rate": 3e-3, "ema_decay": 0}
    model = plugin(plugin.Config.model_validate({"width": 4, "training": training}))
    device = Device(accelerator="cpu", precision="32-true")
    seed_globals(0)
    run = Run(0, tmp_path, train.grid, train.label_names, device)
    save_tensors(tmp_path / "state.pt", model.fit(train, train.subset([0]), run))

    rows = [row.split(",") for row in (tmp_path / "fit.csv").read_text().splitlines()[1:]]
    losses = [float(value) for _, name, value in rows if name == "loss/all"]
    variance = float(train.images().var(axis=0).mean())
    assert np.mean(losses[-10:]) < 0.97 * variance
    run = replace(run, states={"fit": tmp_path / "state.pt"})
    drawn = np.stack([sample.image for sample in model.sample(range(2), run)])
    assert np.abs(drawn[0] - drawn[1]).mean() > 0.003


@pytest.mark.parametrize("kind", ["generator", "segmenter"])
def test_names_become_identifiers_that_are_nothing_else(kind: str, tmp_path: Path) -> None:
    """Also where the name is a module's, a keyword, or one of the names in the template."""
    names = [
        "torch",
        "class",
        "sample",
        "run",
        "3d",
        "a.b-c_d",
        "x",
        "plugin",
        "tensor",
        "my-plugin",
    ]
    for name in names:
        path = write_plugin(kind, name, tmp_path)
        assert path.parent == tmp_path
        assert path.stem not in sys.stdlib_module_names | {"torch"}
        assert path.stem.isidentifier()
        load_plugin(path)
    from bench.registry import SEGMENTERS

    registry = {"generator": GENERATORS, "segmenter": SEGMENTERS}[kind]
    assert set(names) <= set(registry.names())


@pytest.mark.parametrize(
    "name", ["../evil", "a/b", "a b", "", ".hidden", "-x", "é", "a\nb", "<b>", "x" * 65, "all"]
)
def test_a_name_that_leads_elsewhere_is_refused(bench: Bench, tmp_path: Path, name: str) -> None:
    ran = bench("new", "generator", "--out", tmp_path, "--", name)
    assert ran.code == 2
    assert ran.err.startswith("bench: The name ")
    assert ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious")
    ran = bench("new", "generator", "mine", "--out", tmp_path)
    assert ran.code == 2
    assert "mine.py exists already" in ran.err
    assert (tmp_path / "mine.py").read_text() == "precious"
    taken = bench("new", "segmenter", "unet", "--out", tmp_path)
    assert "There is a segmenter 'unet' already, of voxelbench" in taken.err

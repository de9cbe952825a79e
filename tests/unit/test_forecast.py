"""What a run is said to take: hours, memory and disk, against sums made by hand and a true run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TOYS, Ran

from bench.cli import foresee as foresee_module
from bench.cli.foresee import foresee, sentence
from bench.config import resolve
from bench.estimate import SAMPLING, Row, SegmenterProbes, default_limits
from bench.forecast import FREE_VOXELS, Forecast, disk_bytes, forecast, to_measure, voxels_to_learn
from bench.harness import Plan, plan_run
from bench.registry import load_plugin
from bench.scaling import Limits, Work
from bench.store import Store

GRID = (32, 32, 32)
VOXELS = 32**3
WORK = Work(GRID, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0)
SETTINGS = [
    *("data.cases=10", "segmentation.training.steps=7", "labeller.training.steps=11"),
    "scoring.task_features=false",
]


def plan_of(*settings: str, generators: str = "toy-slow", segmenters: str = "unet") -> Plan:
    load_plugin(TOYS)
    options = {"tasks": ("liver-only",)}
    small = ["segmenters.unet.channels=[4,8]"] if segmenters == "unet" else []
    config = resolve("quick", {}, [*SETTINGS, *small, *settings], generators, segmenters, options)
    return plan_run(config, [TOYS])


def row(name: str, part: str, seconds: float, **facts: Any) -> Row:
    return Row(name, part, measured=(WORK,), seconds=seconds, memory_mb=2048.0, **facts)


ROWS = [
    row("toy-slow", "toy-slow/fit", 3.0, state_mb=100.0, trained=10**6),
    row("toy-slow", SAMPLING, 5.0),
    row("unet", "segmenting", 2.0),
]


def test_hours_are_those_of_the_cells() -> None:
    plan = plan_of("generators.toy-slow.training.steps=40")
    expected = forecast(plan, plan.cells, ROWS)
    count = next(c.spec["count"] for c in plan.cells if c.kind == "sample")
    assert expected.hours == pytest.approx(
        {"fits": 40 * 3 / 3600, "volumes": count * 5 / 3600, "segmenters": (2 * 7 + 11) * 2 / 3600}
    )
    assert expected.memory_gib == 2.0
    assert expected.checkpoints_gb == pytest.approx(5 * 4e6 / 1e9)
    assert expected.unknown == ()


def test_what_was_not_measured_is_named() -> None:
    plan = plan_of()
    expected = forecast(plan, plan.cells, [row("unet", "segmenting", 2.0)])
    assert expected.unknown == ("fit toy-slow fit", "sample toy-slow")


def test_equal_epochs_take_more_steps_for_more_volumes() -> None:
    both = [plan_of("segmentation.equal=epochs"), plan_of()]
    epochs, steps = (forecast(p, p.cells, ROWS).hours["segmenters"] for p in both)
    # R, R+S with twice the volumes, and the labeller, whose steps stay.
    assert epochs / steps == pytest.approx((7 + 14 + 11) / (7 + 7 + 11))


def test_the_labeller_s_network_is_measured_where_it_is_no_segmenter_of_the_run() -> None:
    alone = plan_of(generators="toy-plain", segmenters="none")
    assert list(to_measure(alone).segmenters) == ["unet"]
    assert to_measure(plan_of()) is plan_of().config or to_measure(plan_of()).segmenters


def test_the_disk_of_a_true_run_is_as_told(bench: Callable[..., Ran], tmp_path: Path) -> None:
    out, arguments = tmp_path / "out", [part for s in SETTINGS for part in ("--set", s)]
    ran = bench(
        *("run", "--plugin", TOYS, "--generators", "toy-joint", "--segmenters", "none"),
        *("--out", out, *arguments, "--set", "labeller.config.channels=[4,8]"),
    )
    assert ran.code == 0, ran.err
    settings = "labeller.config.channels=[4,8]"
    plan = plan_of(settings, generators="toy-joint", segmenters="none")
    store = Store(out)
    for kind, most in (("prepare", 1.1), ("sample", 1.1), ("features", 2.2)):
        cells = [c for c in plan.cells if c.kind == kind and c.spec.get("plugin") != "task"]
        told = sum(disk_bytes(plan, cell, None) for cell in cells)
        left = sum(size(store.artefacts(cell.key)) for cell in cells)
        assert left > 0
        assert left <= told * 1.02 + 5000 * len(cells)
        assert told <= most * left


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_quick_run_and_one_that_is_begun_measure_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(foresee_module, "_measured", refuse)
    quick = plan_run(resolve("quick", {}, [], "all", "all", {}))
    assert voxels_to_learn(quick, quick.cells) < FREE_VOXELS
    assert foresee(quick, Store(tmp_path), 0) == ""
    small = plan_run(resolve("small", {}, [], "all", "all", {}))
    with pytest.raises(AssertionError):
        foresee(small, Store(tmp_path), 0)
    done = next(cell.key for cell in small.cells if cell.kind == "fit")
    monkeypatch.setattr(Store, "is_done", lambda self, key: key == done)
    assert foresee(small, Store(tmp_path), 0) == ""


def test_an_hour_is_told_and_less_is_not() -> None:
    short = Forecast({"fits": 0.9}, 1.0, 1.0, 0.1)
    assert sentence(short, 1, 5.0) == ""
    long = Forecast({"fits": 30.0, "segmenters": 8.0}, 9.5, 12.0, 0.5)
    told = sentence(long, 2, 60.0)
    assert "about 19 h 0 min by 2 workers" in told
    assert "fits 30 h 0 min, segmenters 8 h 0 min" in told
    assert "9.5 GiB" in told
    assert "12 GB" in told
    assert "--no-estimate" in told
    unknown = Forecast({}, 0.0, 1.0, 0.0, ("fit x",))
    assert "without 1 cells that could not be measured" in sentence(unknown, 1, 5.0)


def test_a_segmenter_is_measured_by_its_own_steps(tmp_path: Path) -> None:
    plan = plan_of()
    probes = SegmenterProbes(
        "unet",
        plan.config,
        plan.data.label_names,
        Limits(120, 1e6),
        (),
        tmp_path,
        lambda line: None,
    )
    found = probes.fit(plan.config.segmenters["unet"], 7, 1)
    assert found.measured[-1].grid == GRID
    assert found.seconds > 0
    assert found.hours == pytest.approx(found.seconds * 7 / 3600)
    import torch

    from bench.registry import SEGMENTERS

    unet = SEGMENTERS.get("unet")
    with torch.device("meta"):
        network = unet.build(1, 5, GRID, unet.Config(channels=(4, 8)))
    assert found.trained == sum(p.numel() for p in network.parameters())
    assert found.state_mb * 2**20 > 4 * found.trained


def test_no_time_left_leaves_the_rest_unmeasured(tmp_path: Path) -> None:
    plan = plan_of()
    over = default_limits(plan.config, 1.0, 1.0)
    probes = SegmenterProbes(
        *("unet", plan.config, plan.data.label_names),
        Limits(over.seconds, over.memory_mb, until=-math.inf),
        *((), tmp_path, lambda line: None),
    )
    assert "no time was left" in probes.fit(plan.config.segmenters["unet"], 7, 1).reason

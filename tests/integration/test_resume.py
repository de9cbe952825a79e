"""Every built-in generator, killed and stopped in the middle of every stage, and started again.

A fit runs in a process of its own, forked from one that has imported everything, as the harness
runs it: real signals, checkpoints by time. What it ends with is compared, bit for bit, with a fit
that nothing happened to.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from generator_cases import DDPM, LABELS, LDM_VAE, LDM_VQVAE, LLDM, balls

import bench.checkpoint
from bench.cli.go import stop_on_signals
from bench.device import Device
from bench.errors import Interrupted
from bench.generator import Generator
from bench.registry import GENERATORS
from bench.run import Run
from bench.volumes import VolumeSet

STEPS = 8
TRAINING = {
    "steps": STEPS,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_steps": 2,
    "clip_norm": 1.0,
    "ema_decay": 0.8,
    "validate_every": 4,
}
CHECKPOINTS = (3, 6)  # by the clock of `fit`
INTERRUPTED = 75
HEAVY = ["lightning_fabric", "matplotlib.image", "generators.lldm", "generators.ddpm", "pytest"]
Faults = Mapping[tuple[str, int], signal.Signals]  # (stage, step) -> what happens after that step


def trained(values: Any, training: Mapping[str, Any]) -> Any:
    """`values` with every `training` in it replaced."""
    if not isinstance(values, Mapping):
        return values
    return {k: training if k == "training" else trained(v, training) for k, v in values.items()}


BEST = {**TRAINING, "keep": "best"}
HA_GAN = {"latent_dim": 4, "width": 1 / 64, "training": TRAINING}  # no validation: nothing is best
CASES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "ha-gan": (HA_GAN, (32, 32, 32)),
    "3d-ddpm": (trained(DDPM, BEST), (16, 16, 16)),
    "ldm-vqvae": (trained(LDM_VQVAE, BEST), (16, 16, 16)),
    "ldm-vae": (trained(LDM_VAE, BEST), (16, 16, 16)),
    "3d-lldm": (trained(LLDM, BEST), (16, 16, 16)),
}


def make(name: str) -> Generator:
    model = GENERATORS.get(name)
    generator: Generator = model(model.Config.model_validate(CASES[name][0]))
    return generator


def fit(name: str, cases: Path, folder: Path, faults: Faults) -> None:
    """Fit what is not yet fitted, and sample; a fault strikes once. Runs in its own process."""
    torch.set_num_threads(1)
    volumes = VolumeSet.open(cases)
    train, val = volumes.subset(range(4)), volumes.subset([4, 5])
    generator = make(name)
    clock = itertools.count()
    minutes = [0]
    bench.checkpoint.time = SimpleNamespace(monotonic=lambda: 60.0 * minutes[0])  # type: ignore

    def run(stage: str, needs: Mapping[str, Path], stop: Any) -> Run:
        def progress(step: int, total: int, scalars: Mapping[str, float]) -> None:
            minutes[0] = next(clock) + 1  # a step takes a minute
            mark = folder / f"{stage.replace('/', '-')}-{step}"
            if (stage, step) in faults and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), faults[stage, step])

        device = Device(accelerator="cpu", precision="32-true", checkpoint_minutes=2.5)
        place = folder / stage.replace("/", "-")
        return Run(
            0, place, volumes.grid, LABELS, device, needs, progress, stop_requested=stop.requested
        )

    with stop_on_signals() as stop:
        states: dict[str, Path] = {}
        for stage in generator.stages():
            path = states[stage.name] = folder / f"{stage.name.replace('/', '-')}.pt"
            if path.exists():
                continue
            needs = {need: states[need] for need in stage.needs}
            minutes[0], clock = 0, itertools.count()
            try:
                torch.save(stage.fit(train, val, run(stage.name, needs, stop)), path)
            except Interrupted:
                sys.exit(INTERRUPTED)
        samples = generator.sample([0, 3, 7], run("sample", states, stop))
        drawn = [(s.image, s.label) for s in samples]
    images = np.stack([image for image, _ in drawn])
    labels = np.stack([np.zeros(1) if label is None else label for _, label in drawn])
    np.savez(folder / "samples.npz", images=images, labels=labels)


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Processes forked from one that has imported everything and never computed a gradient."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


def launch(server: ForkServerContext, *arguments: Any) -> int | None:
    """Run `fit` in a process; its exit code, minus the signal's number where one killed it."""
    process = server.Process(target=fit, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def faults_of(name: str) -> dict[tuple[str, int], signal.Signals]:
    """Each stage is killed after its first checkpoint, and asked to stop after its second."""
    rng = np.random.default_rng(sum(map(ord, name)))
    first, second = CHECKPOINTS
    faults = {}
    for stage in make(name).stages():
        if name == "3d-lldm" and stage.name.startswith("image-"):
            continue  # those of ldm-vae, which are struck there
        faults[stage.name, int(rng.integers(first + 1, second))] = signal.SIGKILL
        faults[stage.name, int(rng.integers(second, STEPS))] = signal.SIGTERM
    return faults


def equal(a: Any, b: Any) -> bool:
    """Whether two nested states are equal, bit for bit."""
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)


@pytest.mark.parametrize("name", CASES)
def test_a_fit_that_was_killed_and_stopped_ends_bit_for_bit_as_one_that_was_not(
    name: str, server: ForkServerContext, tmp_path: Path
) -> None:
    balls(tmp_path / "cases", 6, CASES[name][1])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert launch(server, name, tmp_path / "cases", whole, {}) == 0

    faults = faults_of(name)
    for (stage, step), number in faults.items():
        code = launch(server, name, tmp_path / "cases", broken, faults)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else INTERRUPTED)
        last = broken / stage.replace("/", "-") / "resume" / "fit.pt"
        stands = torch.load(last, weights_only=True)["step"]
        assert stands == (CHECKPOINTS[0] if number == signal.SIGKILL else step)
    assert launch(server, name, tmp_path / "cases", broken, faults) == 0

    for state in whole.glob("*.pt"):
        a, b = (torch.load(folder / state.name, weights_only=True) for folder in (whole, broken))
        assert equal(a, b), f"{state.name} differs"
    curves = [curve.relative_to(whole) for curve in whole.glob("*/fit.csv")]
    assert len(curves) == len(make(name).stages())
    for curve in curves:
        assert (whole / curve).read_text() == (broken / curve).read_text()
    a, b = (np.load(folder / "samples.npz") for folder in (whole, broken))
    np.testing.assert_array_equal(a["images"], b["images"])
    np.testing.assert_array_equal(a["labels"], b["labels"])


def test_the_comparison_sees_a_single_bit(tmp_path: Path) -> None:
    weight = torch.ones(3)
    other = weight.clone()
    other.view(torch.int32)[1] ^= 1
    assert equal({"a": {"b": weight, "scale": 0.5}}, {"a": {"b": weight.clone(), "scale": 0.5}})
    assert not equal({"a": {"b": weight}}, {"a": {"b": other}})
    assert not equal({"scale": 0.5}, {"scale": 0.5000001})
    assert not equal({"scale": 0.5}, {})

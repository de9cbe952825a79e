"""Fits and samples of a generator as the harness makes them, for comparison with one another."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.cells.fit import make_generator, save_state
from bench.contract.requirement import Broken
from bench.contract.small import STOP, Sets
from bench.device import Device
from bench.errors import Interrupted
from bench.generator import Generator
from bench.run import Run, seed_globals
from bench.volumes import Sample, VolumeSet

DEVICE = Device(accelerator="cpu", precision="32-true")
"""Where bits can be compared."""


@dataclass(frozen=True)
class Job:
    """One fit of all stages, and the volumes it is drawn from: plain values for any process."""

    name: str
    config: Mapping[str, Any]
    sets: Sets
    folder: Path
    validation: str = "val"
    seed: int = 0

    def states(self) -> dict[str, Path]:
        """Stage -> file of its state, of a fit that was done."""
        stages = make_generator(self.name, self.config).stages()
        return {stage.name: self.folder / f"{i}.pt" for i, stage in enumerate(stages)}


class Steps:
    """A run's progress: counts the steps a fit tells of, and asks it to stop after one of them."""

    def __init__(self, stop_after: int = 0) -> None:
        self.told = 0
        self._stop_after = stop_after
        self._asked = False

    def __call__(self, step: int, total: int, scalars: Mapping[str, float]) -> None:
        self.told += 1
        self._asked = bool(self._stop_after) and step >= self._stop_after

    def stop_requested(self) -> bool:
        return self._asked


def fit(job: Job) -> dict[str, int]:
    """Fit every stage and keep its state; stage -> steps that it told of."""
    job.folder.mkdir(parents=True, exist_ok=True)
    train, val = job.sets.part("train"), job.sets.part(job.validation)
    steps = {}
    for i, stage in enumerate(make_generator(job.name, job.config).stages()):
        watched = Steps()
        _fit_stage(job, i, train, val, watched)
        steps[stage.name] = watched.told
    return steps


def fit_with_a_stop(job: Job) -> list[str]:
    """The same, each stage stopped after `STOP` steps and begun again.

    Returns the stages that told of later steps and did not stop. Nothing can be said of a stage
    that tells of no steps, or of no more than `STOP`.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    train, val = job.sets.part("train"), job.sets.part(job.validation)
    deaf = []
    for i, stage in enumerate(make_generator(job.name, job.config).stages()):
        watched = Steps(STOP)
        try:
            _fit_stage(job, i, train, val, watched)
        except Interrupted:
            _fit_stage(job, i, train, val, Steps())
        else:
            deaf += [stage.name] if watched.told > STOP else []
    return deaf


def _fit_stage(job: Job, number: int, train: VolumeSet, val: VolumeSet, steps: Steps) -> None:
    """One stage by a fresh instance, as it has in a run: another process, days later."""
    stage = make_generator(job.name, job.config).stages()[number]
    known = job.states()
    states = {name: known[name] for name in stage.needs}
    folder = job.folder / f"work-{number}"
    folder.mkdir(exist_ok=True)
    run = _run(job, train, folder, states, steps)
    save_state(stage.name, stage.fit(train, val, run), job.folder / f"{number}.pt")


def sample(job: Job, indices: Sequence[int], seed: int = 0) -> list[Sample]:
    """The volumes `indices` by a fresh instance, from the states on the disk."""
    generator: Generator = make_generator(job.name, job.config)
    folder = job.folder / "work-sample"
    folder.mkdir(exist_ok=True)
    run = _run(job, job.sets.part("train"), folder, job.states(), Steps(), seed)
    if generator.needs_held:
        run.sets = {**run.sets, "held": job.sets.part("held")}
    samples = []
    for drawn in generator.sample(indices, run):
        samples.append(drawn)
        if len(samples) > len(indices):  # it may never end
            break
    return samples


def fit_and_sample(job: Job, indices: Sequence[int], path: Path) -> None:
    """For another process: leaves the states, and images and labels in a npz file."""
    fit(job)
    write_samples(path, sample(job, indices))


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Images, and labels where there are any."""
    arrays = {"images": np.stack([s.image for s in samples])}
    labels = [s.label for s in samples if s.label is not None]
    np.savez(path, **arrays, **({"labels": np.stack(labels)} if labels else {}))  # type: ignore[arg-type]


def _run(
    job: Job,
    train: VolumeSet,
    folder: Path,
    states: Mapping[str, Path],
    steps: Steps,
    seed: int | None = None,
) -> Run:
    """What a cell gives a plug-in; random states are set as it sets them."""
    chosen = job.seed if seed is None else seed
    seed_globals(chosen)
    return Run(
        seed=chosen,
        folder=folder,
        grid=train.grid,
        label_names=train.label_names,
        device_setting=DEVICE,
        states=states,
        progress=steps,
        stop_requested=steps.stop_requested,
        sets={"train": train},
    )


def stir() -> None:
    """Leave the random states of this process as another cell might have left them."""
    torch.manual_seed(987)
    np.random.seed(654)  # noqa: NPY002 - what plug-ins' libraries draw from
    random.seed(int.from_bytes(os.urandom(4), "big"))


def compare_states(a: Job, b: Job, what: str) -> None:
    """Broken unless all states of two fits are equal, bit for bit."""
    for (stage, first), second in zip(a.states().items(), b.states().values(), strict=True):
        states = (torch.load(path, weights_only=True) for path in (first, second))
        if difference := first_difference(*states):
            raise Broken(f"{what}: the state of {stage!r} differs at {difference}")


def first_difference(a: Any, b: Any, path: str = "") -> str:
    """Where two nested states differ, in words; "" if nowhere."""
    at = path or "its top level"
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return f"{at}, which has the keys {list(a)} and {list(b)}"
        pairs = ((a[key], b[key], f"{path}.{key}" if path else str(key)) for key in a)
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = ((x, y, f"{path}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return "" if _equal(a, b) else f"{at}{_largest(a, b)}"
    else:
        return "" if a == b or (a != a and b != b) else f"{at}, which is {a!r} and {b!r}"
    return next(filter(None, (first_difference(x, y, where) for x, y, where in pairs)), "")


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) if a.numel() else True


def _largest(a: torch.Tensor, b: torch.Tensor) -> str:
    if a.shape != b.shape or not a.is_floating_point():
        return f", of shapes {tuple(a.shape)} and {tuple(b.shape)}"
    return f", by {float((a.double() - b.double()).abs().max()):.3g}"

"""A run from its configuration to its leaderboard."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bench.config import RunConfig, validate
from bench.datasets.config import PHANTOM
from bench.datasets.source import open_source
from bench.datasets.split import split_cases
from bench.datasets.tasks import tasks_of
from bench.disk import writing
from bench.engine.schedule import Again
from bench.errors import InputError
from bench.extractor import decide_extractor
from bench.plan import Cell, DataFacts, ExtractorFacts, make_plan
from bench.registry import GENERATORS, SEGMENTERS
from bench.sealed import write_atomic
from bench.store import Busy, Store
from bench.training_config import TrainingConfig

if TYPE_CHECKING:
    from bench.engine import Engine, Outcome, Watcher
    from bench.generator import Generator


RUNS = "runs"
"""Folder in OUT of what every run there was: what `bench clean` keeps."""


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start: everything about it is checked."""

    config: RunConfig
    data: DataFacts
    extractor: ExtractorFacts
    cells: tuple[Cell, ...]
    plugins: tuple[Path, ...] = ()


def plan_run(config: RunConfig, plugins: Sequence[Path] = ()) -> Plan:
    """Look at the data, decide on the extractor, check every network's grid, list the cells.

    InputError for anything that could not work; nothing is written and nothing is trained.
    """
    source = open_source(config.data)
    patients = {id: source.patient(id) for id in source.ids}
    split = split_cases(patients, config.data.split, config.data.seed, config.data.holdout or 0)
    data = DataFacts(
        name=source.name,
        fingerprint=source.fingerprint,
        label_names=source.label_names,
        tasks=tuple(tasks_of(config.data, source.label_names).values()),
        n_train=len(split["train"]),
        n_val=len(split["val"]),
        n_test=len(split["test"]),
        n_held=len(split.get("held", ())),
    )
    if config.generators and data.n_test < 2:
        raise InputError(
            f"{data.name} has {len(patients)} cases, which leaves {data.n_test} for the test "
            "split; "
            "an FID needs at least 2: give more cases or --generators none."
        )
    check_held(config, data)
    extractor = decide_extractor(config.scoring)
    config.device.check()
    check_networks(config, data)
    cells = make_plan(config, data, extractor)
    return Plan(config, data, extractor, tuple(cells), tuple(plugins))


def check_held(config: RunConfig, data: DataFacts) -> None:
    """InputError if a control draws real cases that this run does not hold out for it."""
    # Two, because a label of another case is one of the things that a control gives. The phantom
    # has fresh cases without end, and is asked for them unless cases are held out of it as well.
    fresh = config.data.source == PHANTOM and not config.data.holdout
    if fresh or data.n_held >= 2:
        return
    for name in config.generators:
        if GENERATORS.get(name).needs_held:
            raise InputError(
                f"The control {name!r} draws real cases that are in no other split and needs at "
                f"least 2 of them, but data.holdout {config.data.holdout or 0:g} of {data.name} "
                f"leaves {data.n_held}; give more cases or a larger data.holdout."
            )


def repeats(plan: Plan) -> str:
    """A sentence where controls score more volumes than there are held-out cases; else ""."""
    n_score = plan.config.scoring.synthetic or plan.data.n_test
    drawing = [name for name in plan.config.generators if GENERATORS.get(name).needs_held]
    if not drawing or not 0 < plan.data.n_held < n_score:
        return ""
    return (
        f"The {n_score} scored volumes of {', '.join(drawing)} are made of only "
        f"{plan.data.n_held} held-out cases, so that some repeat; none does with "
        f"scoring.synthetic={plan.data.n_held} or a larger data.holdout."
    )


def check_networks(config: RunConfig, data: DataFacts) -> None:
    """Ask every generator and segmenter whether it can take the grid, before any training."""
    import torch

    for name, values in config.generators.items():
        plugin = GENERATORS.get(name)
        with blamed("generator", name):
            generator = plugin(plugin.Config.model_validate(values))
            generator.check(config.data.grid, data.label_names)
            check_stages(generator)
            check_batches(generator, data.n_train)
    for name, values in config.segmenters.items():
        segmenter = SEGMENTERS.get(name)
        with blamed("segmenter", name), torch.device("meta"):  # no memory, no random draws
            segmenter.build(1, 2, config.data.grid, segmenter.Config.model_validate(values))
    if config.generators:
        check_labeller(config, data)


def check_labeller(config: RunConfig, data: DataFacts) -> None:
    """Ask the labelling segmenter the same: its configuration is its own, its classes all labels.

    Task features are those of its 3D convolutions, so it must have some.
    """
    import torch

    name = config.labeller.segmenter
    segmenter = SEGMENTERS.get(name)
    values = validate(segmenter.Config, config.labeller.config, "labeller.config")
    channels = len({0, *data.label_names})
    with blamed("labelling segmenter", name), torch.device("meta"):
        network = segmenter.build(1, channels, config.data.grid, values)
    convolutional = any(isinstance(module, torch.nn.Conv3d) for module in network.modules())
    if config.scoring.task_features and not convolutional:
        raise InputError(
            f"The labelling segmenter {name!r} has no 3D convolutions, whose responses task "
            "features are; choose another labeller.segmenter or set scoring.task_features=false."
        )


def check_stages(generator: Generator) -> None:
    """InputError if a stage needs one that does not stand before it."""
    known: list[str] = []
    for stage in generator.stages():
        missing = [name for name in stage.needs if name not in known]
        if missing:
            raise InputError(
                f"Stage {stage.name!r} of {generator.name} needs {missing}, but before it stand "
                f"{known}; name earlier stages."
            )
        known.append(stage.name)


def check_batches(generator: Generator, n_train: int) -> None:
    """InputError if a batch of some stage is larger than the training split."""
    keys = {id(training): key for key, training in trainings(generator.config)}
    for stage in generator.stages():
        for key, training in trainings(stage.config):
            if training.batch_size > n_train:
                key = keys.get(id(training), key)
                raise InputError(
                    f"generators.{generator.name}.{key}.batch_size is {training.batch_size}, but "
                    f"the training split has {n_train} cases, and stage {stage.name!r} learns from "
                    "no others; lower it or give more cases."
                )


def trainings(part: BaseModel) -> Iterator[tuple[str, TrainingConfig]]:
    """Every training configuration within `part`, with its key."""
    for name, value in part:
        if isinstance(value, TrainingConfig):
            yield name, value
        elif isinstance(value, BaseModel):
            yield from ((f"{name}.{key}", found) for key, found in trainings(value))


@contextmanager
def blamed(kind: str, name: str) -> Iterator[None]:
    """Any other error of a plug-in that is only being looked at becomes an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())  # pydantic's and torch's have several lines
        raise InputError(
            f"The {kind} {name!r} cannot be built with this configuration and grid: "
            f"{type(error).__name__}: {text}; change its configuration."
        ) from error


def start(
    plan: Plan,
    out: Path,
    engine: Engine,
    watcher: Watcher,
    stop_requested: Callable[[], bool] = lambda: False,
    again: Again | None = None,
) -> Outcome:
    """Execute the plan in OUT; returns how each cell ended."""
    store = Store(out)
    made = store.prepare_folder()
    prepare_data(plan, store, watcher, stop_requested, made)
    text = json.dumps(describe(plan), indent=1)
    kept = out / RUNS / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"
    with writing(out):
        kept.parent.mkdir(exist_ok=True)
        for path in (kept, out / "run.json"):  # every run on the folder, and the last one
            write_atomic(path, text)
    for cell in plan.cells:  # after the run that refers to them, or `bench clean` might take them
        store.add(cell)
    again = again or Again()
    return engine.run(store, plan.cells, plan.config.device, watcher, stop_requested, again)


def prepare_data(
    plan: Plan, store: Store, watcher: Watcher, stop_requested: Callable[[], bool], made: bool
) -> None:
    """The first cell, whose failure is the user's data: nothing of it stays behind."""
    from bench.cells.execute import execute

    cell = plan.cells[0]
    if store.is_done(cell.key):
        return
    store.add(cell)
    watcher.started(cell)
    try:
        status = execute(store, cell.key, plan.config.device, watcher.step, stop_requested)
    except Busy:  # another run on this folder prepares them: the engine waits for it
        return
    reason = store.status(cell.key)[1]
    watcher.ended(cell, status, reason)
    if status != "done":
        trace = store.attempts(cell.key)[-1].get("traceback", "")
        shutil.rmtree(store.folder(cell.key))
        if made:  # and nobody else has put anything there meanwhile
            with suppress(OSError):
                store.cells.rmdir()
                store.out.rmdir()
        if not reason.startswith("InputError: "):
            raise RuntimeError(f"Preparing {plan.data.name} failed: {reason}\n{trace}")
        raise InputError(reason.removeprefix("InputError: "))


def describe(plan: Plan) -> dict[str, Any]:
    """What OUT/run.json holds: the resolved configuration, the data's facts, the cells in order."""
    return {
        "config": plan.config.model_dump(mode="json"),
        "plugins": [str(path.resolve()) for path in plan.plugins],
        "data": {
            **{k: v for k, v in asdict(plan.data).items() if k != "tasks"},
            "tasks": [task.model_dump(mode="json") for task in plan.data.tasks],
        },
        "extractor": asdict(plan.extractor),
        "controls": [name for name in plan.config.generators if GENERATORS.is_control(name)],
        "cells": [cell.to_json() for cell in plan.cells],
    }

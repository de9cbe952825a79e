"""Fit one stage of a generator."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.cells.context import Context
from bench.disk import save_tensors
from bench.generator import Generator, Stage
from bench.records import Record
from bench.registry import GENERATORS
from bench.run import Run


def run(context: Context) -> list[Record]:
    """Leaves ``state.pt``, what the stage returned; records how many numbers it holds."""
    state, run = train(context)
    save_state(context.spec["stage"], state, context.artefacts / "state.pt")
    return [*run.records, Record(metric="parameters", value=_numbers(state))]


def train(context: Context) -> tuple[object, Run]:
    """What the stage's fit returned, and the run that holds what it measured of itself."""
    train_set, val = context.volumes("train"), context.volumes("val")
    run = context.run(train_set)
    return _stage(context).fit(train_set, val, run), run


def save_state(stage: str, state: object, path: Path) -> None:
    """Keep what the fit of `stage` returned; TypeError and others if it cannot be kept."""
    if not isinstance(state, dict):
        raise TypeError(
            f"The fit of {stage} returned {type(state).__name__}, expected a dict of what "
            "sample needs."
        )
    save_tensors(path, _to_cpu(state))
    torch.load(path, weights_only=True)  # what cannot be read fails here


def _stage(context: Context) -> Stage:
    generator = make_generator(context.cell.extra["plugin"], context.cell.extra["config"])
    stages = {stage.name: stage for stage in generator.stages()}
    return stages[context.spec["stage"]]


def make_generator(name: str, config: object) -> Generator:
    """The generator `name` with its configuration."""
    plugin = GENERATORS.get(name)
    generator: Generator = plugin(plugin.Config.model_validate(config))
    return generator


def _to_cpu(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous()  # whatever format it was trained in
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_cpu(item) for item in value)
    return value


def _numbers(value: object) -> int:
    """Numbers in the floating-point tensors of a state."""
    if isinstance(value, torch.Tensor):
        return value.numel() if value.is_floating_point() else 0
    if isinstance(value, dict):
        return sum(map(_numbers, value.values()))
    return sum(map(_numbers, value)) if isinstance(value, list | tuple) else 0

"""Fit a segmenter on a task and an arm, and test it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bench.cells.context import Context
from bench.cells.segmentation import class_ids, fit_segmenter, predict
from bench.datasets.split import guard_split, seeded_order
from bench.datasets.tasks import Task
from bench.disk import save_tensors
from bench.records import Record
from bench.run import Run
from bench.training_config import TrainingConfig
from bench.volumes import VolumeSet, concatenate
from metrics.segmentation import COUNTS, METRICS, segmentation_scores


def run(context: Context) -> list[Record]:
    """Leaves the predictions on the test cases; records every score per case and class."""
    spec = context.spec
    task = Task.model_validate(spec["task"])
    test = context.volumes("test")
    network, run = train(context)
    predictions = np.stack([predict(network, test.image(i), run) for i in range(len(test))])
    np.savez_compressed(
        context.artefacts / "predictions.npz", predictions=predictions, ids=test.ids
    )
    if spec["keep_weights"]:
        save_tensors(context.artefacts / "weights.pt", network.state_dict())
    return [
        *case_records(task, test, predictions, spec["tolerance_mm"]),
        Record(metric="parameters", value=sum(p.numel() for p in network.parameters())),
        *run.records,
    ]


def train(context: Context) -> tuple[nn.Module, Run]:
    """The segmenter, fitted on the arm, and its run."""
    val, test = context.volumes("val"), context.volumes("test")
    arm = arm_volumes(context)
    guard_split(arm.ids, val.ids, test.ids)
    run = context.run(test)
    training = _training(context, len(arm))
    task = Task.model_validate(context.spec["task"])
    return fit_segmenter(run, context.spec, task, arm, val, training), run


def arm_volumes(context: Context) -> VolumeSet:
    """The volumes of the arm: so many real training cases, so many synthetic ones behind them."""
    spec = context.spec
    train = context.volumes("train")
    used, count = spec["real"], int(spec["synthetic"])
    real = train if used == "all" else first_cases(train, int(used))
    if not count:
        return real
    synthetic = context.synthetic().subset(range(count))
    return concatenate(real, synthetic) if len(real) else synthetic


def first_cases(train: VolumeSet, count: int) -> VolumeSet:
    """So many training cases in a fixed order: a smaller real set is part of every larger one."""
    position = {id: i for i, id in enumerate(train.ids)}
    order = seeded_order(train.ids, seed=0, salt="real")
    return train.subset(position[id] for id in order[:count])


def _training(context: Context, n_volumes: int) -> TrainingConfig:
    """Equal steps for every arm, or equal epochs over the arm's volumes."""
    training = TrainingConfig.model_validate(context.spec["training"])
    if context.spec["equal"] == "steps":
        return training
    n_train = len(context.volumes("train"))
    return training.model_copy(update={"steps": math.ceil(training.steps * n_volumes / n_train)})


def case_records(
    task: Task, test: VolumeSet, predictions: NDArray[np.uint8], tolerance_mm: float
) -> list[Record]:
    """Every score of every test case: per class, and the mean over the classes its reference has.

    A class is scored by the metrics for its kind; the counts stand where they apply, one for
    classes that the reference lacks, the other for those it has (`metrics.segmentation`).
    """
    records = []
    for i, case in enumerate(test.cases):
        scores = segmentation_scores(
            predictions[i],
            task.apply(test.label(i)),
            class_ids(task),
            case.spacing,
            task.class_kinds,
            tolerance_mm,
        )
        for metric, values in scores.items():
            rows = _metric_records(task, metric, values)
            records += [Record(**row, case=case.id) for row in rows]
    return records


def _metric_records(task: Task, metric: str, values: NDArray[np.float64]) -> list[Record]:
    """One case's values of one metric or count."""
    named = list(zip(task.class_names, task.class_kinds, values, strict=True))
    if metric in COUNTS:
        return [
            Record(metric=metric, label=name, value=float(value))
            for name, _, value in named
            if not math.isnan(value)
        ]
    only = METRICS[metric].kind
    scored = {name: float(value) for name, kind, value in named if only in (None, kind)}
    if not scored:
        return []
    present = [value for value in scored.values() if not math.isnan(value)]
    mean = sum(present) / len(present) if present else math.nan
    return [
        *(_record(metric, value, name, (name,)) for name, value in scored.items()),
        _record(metric, mean, "", scored),
    ]


def _record(metric: str, value: float, label: str, classes: Iterable[str]) -> Record:
    record = Record(metric=metric, label=label, value=value)
    if math.isnan(value):
        record["reason"] = f"The reference of this case has no {' or '.join(classes)}."
    return record

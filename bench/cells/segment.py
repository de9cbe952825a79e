"""Fit a segmenter on a task and an arm, and test it."""

from __future__ import annotations

import math

import numpy as np
import torch

from bench.cells.context import Context
from bench.cells.segmentation import class_ids, fit_segmenter, predict
from bench.datasets.split import guard_split, seeded_order
from bench.datasets.tasks import Task
from bench.records import Record
from bench.training_config import TrainingConfig
from bench.volumes import VolumeSet, concatenate
from metrics.dice import case_dice, dice_per_class


def run(context: Context) -> list[Record]:
    """Leaves the predictions on the test cases; records Dice per case and class."""
    spec = context.spec
    task = Task.model_validate(spec["task"])
    val, test = context.volumes("val"), context.volumes("test")
    arm = arm_volumes(context)
    guard_split(arm.ids, val.ids, test.ids)
    training = _training(context, len(arm))
    run = context.run(test)
    network = fit_segmenter(run, spec, task, arm, val, training)
    predictions = np.stack([predict(network, test.image(i), run) for i in range(len(test))])
    np.savez_compressed(
        context.artefacts / "predictions.npz", predictions=predictions, ids=test.ids
    )
    if spec["keep_weights"]:
        torch.save(network.state_dict(), context.artefacts / "weights.pt")
    return [
        *case_records(task, test, predictions),
        Record(metric="parameters", value=sum(p.numel() for p in network.parameters())),
        Record(metric="steps", value=training.steps),
    ]


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
    task: Task, test: VolumeSet, predictions: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> list[Record]:
    """Dice of every test case: per class, and their mean over the classes its reference has."""
    records = []
    for i, case in enumerate(test.ids):
        reference = task.apply(test.label(i))
        values = dice_per_class(predictions[i], reference, class_ids(task))
        for name, label, value in zip(task.class_names, class_ids(task), values, strict=True):
            records.append(Record(metric="dice", label=name, case=case, value=float(value)))
            if math.isnan(value):
                seen = bool((predictions[i] == label).any())
                records.append(
                    Record(metric="absent_but_predicted", label=name, case=case, value=seen)
                )
        records.append(Record(metric="dice", case=case, value=case_dice(values)))
    return records

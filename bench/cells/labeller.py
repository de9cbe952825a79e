"""Label the volumes of image-only generators: one segmenter, fit on the training split's labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from bench.cells.context import Context
from bench.cells.segmentation import build, fit_segmenter, mean_dice, predict
from bench.datasets.tasks import Task
from bench.disk import load_tensors, save_tensors
from bench.records import Record
from bench.run import Run
from bench.training_config import TrainingConfig
from bench.volumes import VolumeSet, new_array

LabelMaps = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def run(context: Context) -> list[Record]:
    """Leaves ``state.pt``; records its Dice on the validation cases."""
    network, run = train(context)
    val = context.volumes("val")
    task = every_label(val)
    save_tensors(context.artefacts / "state.pt", network.state_dict())
    scores = [
        mean_dice(predict(network, val.image(i), run), task.apply(val.label(i)), task)
        for i in range(len(val))
    ]
    return [Record(metric="labeller_dice", value=float(np.nanmean(scores)))]


def train(context: Context) -> tuple[nn.Module, Run]:
    """The segmenter of all labels, fitted on the real training cases, and its run."""
    train_set, val = context.volumes("train"), context.volumes("val")
    run = context.run(train_set)
    training = TrainingConfig.model_validate(context.spec["training"])
    task = every_label(train_set)
    return fit_segmenter(run, context.spec, task, train_set, val, training), run


def label(context: Context) -> list[Record]:
    """Label a synthetic set; leaves ``labels.npy`` (N, D, H, W) uint8."""
    write_labels(context, context.synthetic(), context.artefacts / "labels.npy")
    return []


def write_labels(context: Context, volumes: VolumeSet, path: Path) -> LabelMaps:
    """What the labeller of this cell sees in every image, as a memory-mapped npy file."""
    run = context.run(volumes)
    network, task = load_labeller(context, volumes, run)
    shape = (len(volumes), *volumes.grid)
    labels = new_array(path, np.uint8, shape)
    ids = np.array([0, *(ids[0] for ids in task.classes.values())], dtype=np.uint8)
    for i in range(len(volumes)):
        labels[i] = ids[predict(network, volumes.image(i), run)]
        context.tick(i + 1, len(volumes))
    labels.flush()
    return labels


def load_labeller(context: Context, volumes: VolumeSet, run: Run) -> tuple[nn.Module, Task]:
    """The fitted network of the cell in the role "labeller", in evaluation mode, and its task."""
    task = every_label(volumes)
    network = build(context.store.cell(context.cell.needs["labeller"]).spec, task, run)
    network.load_state_dict(load_tensors(context.needed("labeller") / "state.pt", run.device))
    return network.eval(), task


def every_label(volumes: VolumeSet) -> Task:
    """The task whose classes are all labels of the set."""
    names = {name: (i,) for i, name in volumes.label_names.items() if i != 0}
    return Task(name="all-labels", classes=names)

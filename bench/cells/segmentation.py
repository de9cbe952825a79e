"""Fitting a segmenter and predicting with it: what arms R and R+S and the labeller share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from bench.datasets.tasks import Task
from bench.registry import SEGMENTERS
from bench.run import Run
from bench.training import Batches, Networks, train
from bench.training_config import TrainingConfig
from bench.volumes import Label, VolumeSet
from metrics.dice import case_dice, dice_per_class


def fit_segmenter(
    run: Run,
    spec: Mapping[str, Any],
    task: Task,
    train_set: VolumeSet,
    val_set: VolumeSet,
    training: TrainingConfig,
) -> nn.Module:
    """Train the segmenter `spec` names on `task` and return it as it was best on `val_set`.

    Dice + cross-entropy over the foreground classes, Adam; selection by the mean Dice of the
    validation cases.
    """
    network = build(spec, task, run)
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    batches = Batches(len(train_set), training.batch_size, run.seed)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = batches(step)
        images = torch.from_numpy(train_set.images(rows))[:, None]
        labels = torch.from_numpy(task.apply(train_set.labels(rows)))[:, None]
        return images.to(run.device), labels.to(run.device)

    def losses(networks: Networks, data: tuple[Tensor, Tensor]) -> Iterator[tuple[str, Tensor]]:
        images, labels = data
        yield "all", supervised(networks["segmenter"](images), labels, loss)

    def validate(networks: Networks) -> dict[str, float]:
        scores = [
            mean_dice(
                predict(networks["segmenter"], val_set.image(i), run),
                task.apply(val_set.label(i)),
                task,
            )
            for i in range(len(val_set))
        ]
        return {"dice": float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")}

    states = train(
        run, {"segmenter": network}, losses, batch, training, validate=validate, select="dice"
    )
    network.load_state_dict(states["segmenter"])
    return network.eval()


def build(spec: Mapping[str, Any], task: Task, run: Run) -> nn.Module:
    """The network, its weights drawn from the run's seed."""
    segmenter = SEGMENTERS.get(spec["segmenter"])
    torch.manual_seed(run.seed)
    config = segmenter.Config.model_validate(spec["config"])
    network: nn.Module = segmenter.build(1, task.out_channels, run.grid, config)
    return network.to(run.device)


def supervised(logits: Tensor, labels: Tensor, loss: nn.Module) -> Tensor:
    """The loss in float32; of a deeply supervised network each coarser head counts half as much."""
    if logits.ndim == 5:
        value: Tensor = loss(logits.float(), labels)
        return value
    heads = logits.float().unbind(dim=1)
    weights = [0.5**i for i in range(len(heads))]
    total: Tensor = sum(w * loss(head, labels) for w, head in zip(weights, heads, strict=True))
    return total / sum(weights)


def predict(network: nn.Module, image: np.ndarray[Any, Any], run: Run) -> Label:
    """Class of every voxel of one image (D, H, W): argmax of the logits, uint8."""
    with torch.no_grad(), run.autocast():
        logits = network(torch.from_numpy(image)[None, None].to(run.device))
    classes: Label = logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return classes


def mean_dice(prediction: Label, reference: Label, task: Task) -> float:
    """One case's mean Dice over the task's classes that its reference has; nan if it has none."""
    return case_dice(dice_per_class(prediction, reference, class_ids(task)))


def class_ids(task: Task) -> range:
    """The values of a task's classes in its label maps: 1, 2, ..."""
    return range(1, task.out_channels)

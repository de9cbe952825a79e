"""The label autoencoder of 3D-LLDM: one-hot label maps in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.losses import DiceLoss
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.generator import State
from bench.training import Batches, train
from generators.autoencoders import KLAutoencoder, KLConfig, kl_divergence
from generators.data import from_logits, label_ids, one_hot
from generators.diffusion import chunks
from generators.diffusion_fit import VALIDATION_CASES

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet


class RoundTripError(RuntimeError):
    """The label autoencoder loses structures; what builds on it would be wasted."""


class LabelAutoencoderConfig(KLConfig):
    """The label autoencoder: Dice + cross-entropy + KL."""

    class_balance: float = Field(
        0.5, ge=0, le=1, description="voxel weights go with class frequency to minus this power"
    )
    required_dice: float = Field(
        0.0,
        ge=0,
        le=1,
        description="the fit fails if a structure's round-trip Dice on validation cases is lower",
    )


def class_weights(labels: VolumeSet, ids: tuple[int, ...], balance: float) -> Tensor:
    """Cross-entropy weights of the classes `ids`, (K,): frequency ** -balance, with mean 1 over
    the voxels."""
    counts = np.zeros(256)
    for i in range(len(labels)):
        counts += np.bincount(labels.label(i).ravel(), minlength=256)
    share = np.maximum(counts[list(ids)], 1) / counts.sum()
    weights = share**-balance
    return torch.tensor(weights / (weights * share).sum(), dtype=torch.float32)


def round_trip_dice(network: KLAutoencoder, volumes: VolumeSet, run: Run) -> dict[str, float]:
    """Dice of label maps with their reconstruction from the latents' mean, by structure.

    Taken over the voxels of up to 16 cases together; structures in none of them are left out.
    """
    ids = label_ids(run.label_names)
    overlap, total = np.zeros(len(ids)), np.zeros(len(ids))
    for rows in chunks(range(min(len(volumes), VALIDATION_CASES)), 1):
        truth = volumes.labels(rows)
        with torch.no_grad(), run.autocast():
            mu, _ = network.encode(one_hot(truth, ids, run.device))
            back = from_logits(network.decode(mu), ids)
        for k, value in enumerate(ids):
            overlap[k] += 2 * np.sum((truth == value) & (back == value))
            total[k] += np.sum(truth == value) + np.sum(back == value)
    return {
        run.label_names[v]: float(overlap[k] / total[k])
        for k, v in enumerate(ids)
        if v != 0 and total[k] > 0
    }


def fit_label_autoencoder(
    config: LabelAutoencoderConfig, train_set: VolumeSet, val: VolumeSet, run: Run
) -> State:
    """Stage "label-autoencoder": Dice + cross-entropy + KL on one-hot label maps."""
    torch.manual_seed(run.seed)
    ids = label_ids(run.label_names)
    network = KLAutoencoder(config, channels=len(ids))
    weights = class_weights(train_set, ids, config.class_balance).to(run.device)
    dice = DiceLoss(softmax=True, batch=True)
    order = Batches(len(train_set), config.training.batch_size, run.seed)

    def losses(networks: Mapping[str, nn.Module], x: Tensor) -> Any:
        logits, mu, sigma = networks["autoencoder"](x)
        with torch.autocast(x.device.type, enabled=False):
            logits = logits.float()
            distance = dice(logits, x) + F.cross_entropy(logits, x.argmax(1), weight=weights)
            yield "all", distance + config.kl_weight * kl_divergence(mu, sigma)

    def validate(networks: Mapping[str, nn.Module]) -> dict[str, float]:
        scores = round_trip_dice(networks["autoencoder"], val, run)  # type: ignore[arg-type]
        return {f"dice/{name}": value for name, value in scores.items()}

    kept = train(
        run,
        {"autoencoder": network},
        losses,
        lambda step: one_hot(train_set.labels(order(step)), ids, run.device),
        config.training,
        average=["autoencoder"],
        validate=validate if len(val) else None,
    )
    network.load_state_dict(kept["autoencoder"])
    found = round_trip_dice(network.to(run.device).eval(), val, run)
    _require(found, config.required_dice)
    return {"autoencoder": kept["autoencoder"], "round_trip_dice": found}


def _require(dice: Mapping[str, float], required: float) -> None:
    for name, value in dice.items():
        if value < required:
            raise RoundTripError(
                f"The label autoencoder's round-trip Dice of {name!r} is {value:.3f}, below "
                f"required_dice {required}; train it longer or give it more channels."
            )

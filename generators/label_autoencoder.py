"""The label autoencoder of 3D-LLDM: one-hot label maps in, logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from monai.losses import DiceLoss
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.generator import State
from bench.training import Batches, train
from generators.autoencoders import KLAutoencoder, KLConfig, kl_divergence
from generators.data import from_logits, label_ids, one_hot, patches_of_labels
from generators.diffusion_fit import VALIDATION_CASES

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet

Labels = NDArray[np.uint8]
TOUCHING = ndimage.generate_binary_structure(3, 3)  # voxels that share a face, an edge or a corner
PREVIEWS = 4


class RoundTripError(RuntimeError):
    """The label autoencoder loses structures; what builds on it would be wasted."""


class LabelAutoencoderConfig(KLConfig):
    """The label autoencoder: Dice + cross-entropy + KL, and what its round trip must keep."""

    class_balance: float = Field(
        0.5, ge=0, le=1, description="voxel weights go with class frequency to minus this power"
    )
    required_dice: float = Field(
        0.0,
        ge=0,
        le=1,
        description="the fit fails if a structure's round-trip Dice on validation cases is lower",
    )
    component_tolerance: float | None = Field(
        None,
        ge=0,
        description="the fit fails if the round trip changes a structure's number of connected "
        "parts by more than this, mean over validation cases; null is off",
    )


class RoundTrip(NamedTuple):
    """What label maps keep on their way through the latents' mean and back, by structure."""

    dice: dict[str, float]
    """Over the voxels of the cases together."""
    components: dict[str, float]
    """|parts after − parts before|, mean over the cases; voxels that touch at a corner are one."""


def fit_label_autoencoder(
    config: LabelAutoencoderConfig, train_set: VolumeSet, val: VolumeSet, run: Run
) -> State:
    """Stage "label-autoencoder": Dice + cross-entropy + KL on one-hot label maps.

    Records round_trip_dice and round_trip_components of every structure and their means: on
    validation cases, or, for a structure that none of them has, on training cases.

    Raises:
        InputError: no training case has one of the labels.
        RoundTripError: a structure falls short of required_dice or component_tolerance.
    """
    torch.manual_seed(run.seed)
    ids = label_ids(run.label_names)
    counts = voxel_counts(train_set, ids)
    require_every_class(counts, ids, run.label_names)
    network = KLAutoencoder(config, channels=len(ids))
    weights = balanced(counts.sum(0), config.class_balance).to(run.device)
    dice = DiceLoss(softmax=True, batch=True)
    order = Batches(len(train_set), config.training.batch_size, run.seed)

    def batch(step: int) -> Tensor:
        maps = patches_of_labels(train_set.labels(order(step)), config.training_patch)
        return one_hot(maps, ids, run.device)

    def losses(networks: Mapping[str, nn.Module], x: Tensor) -> Any:
        logits, mu, sigma = networks["autoencoder"](x)
        with torch.autocast(x.device.type, enabled=False):
            logits = logits.float()
            distance = dice(logits, x) + F.cross_entropy(logits, x.argmax(1), weight=weights)
            yield "all", distance + config.kl_weight * kl_divergence(mu, sigma)

    def validate(networks: Mapping[str, nn.Module]) -> dict[str, float]:
        found = round_trip(networks["autoencoder"], _first(val), run)
        return {
            "dice": _mean(found.dice),
            **{f"dice/{name}": value for name, value in found.dice.items()},
            **{f"components/{name}": value for name, value in found.components.items()},
        }

    kept = train(
        run,
        {"autoencoder": network},
        losses,
        batch,
        config.training,
        average=["autoencoder"],
        validate=validate if len(val) else None,
        select="dice",
        preview=lambda nets: _pairs(nets["autoencoder"], val if len(val) else train_set, run),
    )
    network.load_state_dict(kept["autoencoder"])
    found = judge(network.to(run.device).eval(), train_set, counts, val, run)
    for metric, values in zip(("round_trip_dice", "round_trip_components"), found, strict=True):
        for name, value in values.items():
            run.record(metric, value, name)
        run.record(metric, _mean(values))
    require(found, config)
    return {"autoencoder": kept["autoencoder"]}


def voxel_counts(volumes: VolumeSet, ids: Sequence[int]) -> NDArray[np.int64]:
    """Voxels of each of the classes `ids` in each case, (N, K)."""
    rows = [np.bincount(volumes.label(i).ravel(), minlength=256) for i in range(len(volumes))]
    return np.array(rows, dtype=np.int64).reshape(-1, 256)[:, list(ids)]


def balanced(counts: NDArray[np.int64], balance: float) -> Tensor:
    """Cross-entropy weights of the classes with `counts` voxels, (K,): frequency ** -balance, with
    mean 1 over the voxels."""
    share = np.maximum(counts, 1) / counts.sum()
    weights = share**-balance
    return torch.tensor(weights / (weights * share).sum(), dtype=torch.float32)


def round_trip(network: nn.Module, cases: Sequence[tuple[VolumeSet, int]], run: Run) -> RoundTrip:
    """Dice and changed components of label maps after their reconstruction from the latents' mean.

    `cases` are (set, index); structures that none of them has are left out.
    """
    structures = {v: run.label_names[v] for v in label_ids(run.label_names) if v != 0}
    true, overlap, total, changed = (dict.fromkeys(structures, 0) for _ in range(4))
    for volumes, i in cases:
        truth = volumes.label(i)
        back = reconstruct_label(network, truth, run)
        for v in structures:
            a, b = truth == v, back == v
            true[v] += int(a.sum())
            overlap[v] += int((a & b).sum())
            total[v] += int(a.sum()) + int(b.sum())
            changed[v] += abs(_parts(a) - _parts(b))
    return RoundTrip(
        {name: 2 * overlap[v] / total[v] for v, name in structures.items() if true[v]},
        {name: changed[v] / len(cases) for v, name in structures.items() if true[v]},
    )


@torch.no_grad()
def reconstruct_label(network: nn.Module, label: Labels, run: Run) -> Labels:
    """A label map (D, H, W) by way of the mean of its latents, tile by tile where configured."""
    autoencoder = cast(KLAutoencoder, network)
    ids = label_ids(run.label_names)
    with run.autocast():
        z = autoencoder.encode_volume(one_hot(label[None], ids, run.device))
        back: Labels = from_logits(autoencoder.decode_volume(z), ids)[0]
    return back


def _parts(mask: NDArray[np.bool_]) -> int:
    return int(ndimage.label(mask, structure=TOUCHING)[1])


def judge(
    network: nn.Module,
    train_set: VolumeSet,
    train_counts: NDArray[np.int64],
    val: VolumeSet,
    run: Run,
) -> RoundTrip:
    """The round trip of every structure, on `VALIDATION_CASES` cases at most.

    These are the first validation cases; for a structure that they lack, others that have it; for
    one that no validation case has, training cases. `train_counts` are their `voxel_counts`.
    """
    found = round_trip(network, _first(val), run)
    ids = label_ids(run.label_names)
    val_counts = voxel_counts(val, ids)
    for k, value in enumerate(ids):
        name = run.label_names.get(value, "")
        if value == 0 or name in found.dice:
            continue
        volumes, counts = (val, val_counts) if val_counts[:, k].any() else (train_set, train_counts)
        rows = np.flatnonzero(counts[:, k])[:VALIDATION_CASES]
        instead = round_trip(network, [(volumes, int(i)) for i in rows], run)
        found.dice[name] = instead.dice[name]
        found.components[name] = instead.components[name]
    return found


def require(found: RoundTrip, config: LabelAutoencoderConfig) -> None:
    """RoundTripError if a structure falls short of what the configuration asks for."""
    for name, value in found.dice.items():
        if value < config.required_dice:
            raise RoundTripError(
                f"The label autoencoder's round-trip Dice of {name!r} is {value:.3f}, below "
                f"required_dice {config.required_dice}; train it longer or give it more channels."
            )
    if config.component_tolerance is None:
        return
    for name, value in found.components.items():
        if value > config.component_tolerance:
            raise RoundTripError(
                f"The label autoencoder's round trip changes the number of connected parts of "
                f"{name!r} by {value:.2f} a case, above component_tolerance "
                f"{config.component_tolerance}; train it longer, give it more channels or a "
                "smaller factor."
            )


def require_every_class(
    counts: NDArray[np.int64], ids: Sequence[int], names: Mapping[int, str]
) -> None:
    for value, count in zip(ids, counts.sum(0), strict=True):
        if value != 0 and not count:
            raise InputError(
                f"None of the {len(counts)} training cases has the label {names[value]!r} "
                f"({value}), so nothing can learn it; add cases that have it or drop it from the "
                "data's labels."
            )


def _first(volumes: VolumeSet) -> list[tuple[VolumeSet, int]]:
    return [(volumes, i) for i in range(min(len(volumes), VALIDATION_CASES))]


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else float("nan")


def _pairs(network: nn.Module, volumes: VolumeSet, run: Run) -> NDArray[np.float32]:
    """Real, reconstruction, real, …: (2 n, D, H, W), the classes spread over [0, 1]."""
    maps = []
    for _, i in _first(volumes)[:PREVIEWS]:
        maps += [volumes.label(i), reconstruct_label(network, volumes.label(i), run)]
    ids = label_ids(run.label_names)
    return (np.searchsorted(ids, np.stack(maps)) / max(len(ids) - 1, 1)).astype(np.float32)

"""Training of 3D-LLDM's ControlNet: real images guided by their own label maps (eq. 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.generator import State
from bench.training import Batches, train
from generators.autoencoders import ImageAutoencoderConfig, KLAutoencoder
from generators.condition import Condition, Labels, structure_weights, voxel_weighting
from generators.control import (
    ControlNetConfig,
    build_controlnet,
    condition_channels,
    guided,
    trained_condition,
)
from generators.data import label_ids
from generators.diffusion import Predict, make_process
from generators.diffusion_fit import (
    PREVIEW_VOLUMES,
    VALIDATION_CASES,
    DiffusionConfig,
    diffusion_loss,
    preview_sampling,
)
from generators.label_autoencoder import (
    LabelAutoencoderConfig,
    require_every_class,
    voxel_counts,
)
from generators.latents import Encode, Latents, encode_all, encode_training, loaded, scale_factor
from generators.ldm import decode_images, image_autoencoder, image_encoder
from generators.sampler import chunks, denoise
from generators.unet import build_unet

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet

Networks = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Guidance:
    """The ControlNet's loss on real cases (eq. 6), with what it needs of the LDM below it."""

    config: ControlNetConfig
    ldm: DiffusionConfig
    unet: nn.Module  # the LDM; used where none is being trained
    weight: Callable[[Labels], Tensor] | None

    def predict(self, shown: Networks, condition: Tensor) -> Predict:
        return guided(shown.get("unet", self.unet), shown["controlnet"], condition)

    def loss(self, shown: Networks, x0: Tensor, condition: Tensor, labels: Labels) -> Tensor:
        """The LDM's loss under guidance, for scaled latents x0 (B, C, d, h, w)."""
        return diffusion_loss(
            make_process(self.ldm.process),
            self.predict(shown, condition),
            x0,
            self.config.draw,
            self.ldm.loss,
            None if self.weight is None else self.weight(labels),
        )


def fit_controlnet(
    config: ControlNetConfig,
    autoencoder: ImageAutoencoderConfig,
    ldm: DiffusionConfig,
    labels: LabelAutoencoderConfig,
    train_set: VolumeSet,
    val: VolumeSet,
    run: Run,
) -> State:
    """Stage "controlnet": image latents guided by the label maps of the real cases.

    Its state holds the LDM it goes with, which is the stage's own where `train_ldm` is set, and
    the scale of the condition.
    """
    ids = label_ids(run.label_names)
    counts = voxel_counts(train_set, ids)
    require_every_class(counts, ids, run.label_names)
    network = image_autoencoder(autoencoder, run)
    encode = image_encoder(network, run)
    state = run.state("image-ldm")
    latents = Latents(encode_training(train_set, encode, run), state["scale"])
    condition, of_training = _conditions(config, labels, train_set, run)
    torch.manual_seed(run.seed)
    unet = loaded(build_unet(ldm.unet, autoencoder.latent_channels), state["unet"], run)
    channels = condition_channels(config, labels, run)
    networks = {"controlnet": build_controlnet(config, ldm, unet, channels)}
    if config.train_ldm:
        networks["unet"] = unet.requires_grad_(True)
    weight = _weighting(config, counts.sum(0), train_set, autoencoder.factor, run)
    guidance = Guidance(config, ldm, unet, weight)
    order = Batches(len(train_set), config.training.batch_size, run.seed)

    def batch(step: int) -> tuple[Tensor, Tensor, Labels]:
        rows = order(step)
        return latents.batch(rows, run.device), of_training(rows), train_set.labels(rows)

    def losses(shown: Networks, data: tuple[Tensor, Tensor, Labels]) -> Iterator[Any]:
        yield "all", guidance.loss(shown, *data)

    kept = train(
        run,
        networks,
        losses,
        batch,
        config.training,
        average=list(networks),
        validate=_validation(guidance, condition, encode, latents.scale, val, run),
        select="-loss",
        preview=_preview(guidance, condition, network, latents, val, run),
    )
    return {
        "unet": state["unet"],
        **kept,
        "scale": state["scale"],
        "condition_scale": condition.scale,
    }


def _conditions(
    config: ControlNetConfig, labels: LabelAutoencoderConfig, train_set: VolumeSet, run: Run
) -> tuple[Condition, Callable[[list[int]], Tensor]]:
    """The condition for any label map, and that of training cases, encoded once where latent."""
    condition = trained_condition(config, labels, 1.0, run)
    if condition.autoencoder is None:
        return condition, lambda rows: condition(train_set.labels(rows))
    path = run.folder / "resume" / "conditions.npy"
    values = encode_all(train_set, lambda volumes, i: condition(volumes.labels([i])), path)
    latents = Latents(values, scale_factor(values))
    return replace(condition, scale=latents.scale), lambda rows: latents.batch(rows, run.device)


def _weighting(
    config: ControlNetConfig,
    counts: NDArray[np.int64],
    train_set: VolumeSet,
    factor: int,
    run: Run,
) -> Callable[[Labels], Tensor] | None:
    if not config.weighs:
        return None
    weights = structure_weights(
        counts, run.label_names, config.balance, config.max_weight, config.structure_weight
    )
    return voxel_weighting(train_set, weights, factor, run.device)


def _validation(
    guidance: Guidance, condition: Condition, encode: Encode, scale: float, val: VolumeSet, run: Run
) -> Callable[[Networks], dict[str, float]] | None:
    """The loss on validation cases, with their own labels and with each other's.

    The second is the control: where both are equal, the images ignore their labels.
    """
    if not len(val):
        return None
    rows = list(range(min(len(val), VALIDATION_CASES)))
    with torch.no_grad():
        x0 = [encode(val, i).float() * scale for i in rows]

    def validate(shown: Networks) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, shift in (("loss", 0), ("loss_shuffled", 1)):
            torch.manual_seed(run.seed)  # the same noise and timesteps each time
            values = []
            for i in rows:
                guide = condition(val.labels([rows[i - shift]]))
                with run.autocast():
                    values.append(guidance.loss(shown, x0[i], guide, val.labels([i])))
            found[name] = float(torch.stack(values).mean())
        return found

    return validate


def _preview(
    guidance: Guidance,
    condition: Condition,
    network: KLAutoencoder,
    latents: Latents,
    val: VolumeSet,
    run: Run,
) -> Callable[[Networks], NDArray[np.float32]] | None:
    """Images (n, D, H, W) in [0, 1] for the first validation cases' labels, in a few steps."""
    if not len(val):
        return None
    process = make_process(guidance.ldm.process)
    sampling = preview_sampling(process)
    shape = latents.values.shape[1:]
    cases = range(min(len(val), PREVIEW_VOLUMES))

    def preview(shown: Networks) -> NDArray[np.float32]:
        images: list[NDArray[np.float32]] = []
        for rows in chunks(cases, guidance.config.training.batch_size):
            predict = guidance.predict(shown, condition(val.labels(rows)))
            z = denoise(process, predict, rows, shape, sampling, run)
            images += decode_images(network, z / latents.scale, run)
        return np.stack(images)

    return preview

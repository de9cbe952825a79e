"""The ControlNet of 3D-LLDM (Zhang & Agrawala, arXiv 2302.05543): label maps guide the LDM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from monai.networks.nets import ControlNet, DiffusionModelUNet
from pydantic import Field
from torch import Tensor, nn

from bench.errors import InputError
from bench.generator import Frozen, State
from bench.training import Batches, TrainingConfig, train
from generators.autoencoders import ImageAutoencoderConfig
from generators.data import label_ids, one_hot
from generators.diffusion import Predict, TimestepConfig, make_process
from generators.diffusion_fit import VALIDATION_CASES, DiffusionConfig, diffusion_loss
from generators.latents import Encode, Latents, encode_training, loaded
from generators.ldm import image_autoencoder, image_encoder
from generators.unet import build_unet

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet

# (networks by name, clean latents, one-hot label maps) -> loss
GuidedLoss = Callable[[Mapping[str, nn.Module], Tensor, Tensor], Tensor]


class ControlTimesteps(TimestepConfig):
    """Timesteps of ControlNet training: layout is decided where noise is high."""

    distribution: Literal["uniform", "logit-normal"] = Field(
        "logit-normal", description="of t / T, where 1 is pure noise"
    )
    loc: float = Field(1.0, description="logit-normal's location; above 0 is more noise")


class ControlNetConfig(Frozen):
    """The ControlNet and its training on real label maps."""

    embedding_channels: tuple[int, ...] = Field(
        (16, 32, 64),
        min_length=1,
        description="widths of the embedding of the label map; each after the first halves it",
    )
    draw: ControlTimesteps = Field(ControlTimesteps(), description="timesteps seen in training")
    train_ldm: bool = Field(False, description="train the LDM too instead of freezing it")
    training: TrainingConfig = Field(TrainingConfig(), description="optimisation")


def check_embedding(config: ControlNetConfig, factor: int, where: str) -> None:
    """InputError unless the embedding shrinks the label map to the size of the latents."""
    strides = 2 ** (len(config.embedding_channels) - 1)
    if strides != factor:
        raise InputError(
            f"{where}.embedding_channels has {len(config.embedding_channels)} widths and shrinks "
            f"the label map {strides} times, the autoencoder shrinks the image {factor} times; "
            "give one width more than there are halvings."
        )


def build_controlnet(
    config: ControlNetConfig, ldm: DiffusionConfig, unet: DiffusionModelUNet, classes: int
) -> ControlNet:
    """A ControlNet that begins as a copy of the LDM's encoder and adds exactly 0 to it.

    The condition is the one-hot label map (B, classes, D, H, W) at full size: shrunk to the latent
    grid first, thin vessels would vanish.
    """
    network = ControlNet(
        in_channels=unet.in_channels,
        conditioning_embedding_in_channels=classes,
        conditioning_embedding_num_channels=config.embedding_channels,
        **ldm.unet.arguments(),
    )
    missing = network.load_state_dict(unet.state_dict(), strict=False).missing_keys
    unknown = [key for key in missing if not key.startswith("controlnet_")]
    if unknown:
        raise RuntimeError(
            f"The ControlNet has parts that its LDM lacks, {unknown}; build both alike."
        )
    return network


def guided(unet: nn.Module, controlnet: nn.Module, condition: Tensor) -> Predict:
    """The LDM's prediction with the ControlNet's residuals for `condition` (B, K, D, H, W)."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        down, middle = controlnet(x, t, condition)
        output: Tensor = unet(
            x,
            t,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        )
        return output

    return predict


def fit_controlnet(
    config: ControlNetConfig,
    autoencoder: ImageAutoencoderConfig,
    ldm: DiffusionConfig,
    train_set: VolumeSet,
    val: VolumeSet,
    run: Run,
) -> State:
    """Stage "controlnet": image latents guided by the label maps of the real cases.

    Its state holds the LDM it goes with, which is the stage's own where `train_ldm` is set.
    """
    encode = image_encoder(image_autoencoder(autoencoder, run), run)
    state = run.state("image-ldm")
    latents = Latents(encode_training(train_set, encode, run), state["scale"])
    ids = label_ids(run.label_names)
    torch.manual_seed(run.seed)
    unet = loaded(build_unet(ldm.unet, autoencoder.latent_channels), state["unet"], run)
    networks = {"controlnet": build_controlnet(config, ldm, unet, len(ids))}
    if config.train_ldm:
        networks["unet"] = unet.requires_grad_(True)
    loss = _guided_loss(config, ldm, unet)
    order = Batches(len(train_set), config.training.batch_size, run.seed)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = order(step)
        return latents.batch(rows, run.device), one_hot(train_set.labels(rows), ids, run.device)

    kept = train(
        run,
        networks,
        lambda shown, pair: iter([("all", loss(shown, *pair))]),
        batch,
        config.training,
        average=list(networks),
        validate=_validation(loss, encode, latents.scale, val, run) if len(val) else None,
    )
    return {"unet": state["unet"], **kept, "scale": state["scale"]}


def _guided_loss(config: ControlNetConfig, ldm: DiffusionConfig, frozen: nn.Module) -> GuidedLoss:
    """The LDM's loss under guidance; `frozen` is the LDM where none is being trained."""
    process = make_process(ldm.process)

    def loss(shown: Mapping[str, nn.Module], x0: Tensor, condition: Tensor) -> Tensor:
        predict = guided(shown.get("unet", frozen), shown["controlnet"], condition)
        return diffusion_loss(process, predict, x0, config.draw, ldm.loss)

    return loss


def _validation(
    loss: GuidedLoss,
    encode: Encode,
    scale: float,
    val: VolumeSet,
    run: Run,
) -> Callable[[Mapping[str, nn.Module]], dict[str, float]]:
    """The loss on validation cases, with their own labels and with each other's.

    The second is the control: where both are equal, the images ignore their labels.
    """
    ids = label_ids(run.label_names)
    rows = list(range(min(len(val), VALIDATION_CASES)))
    with torch.no_grad():
        x0 = [encode(val, i).float() * scale for i in rows]

    def validate(shown: Mapping[str, nn.Module]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, shift in (("loss", 0), ("loss_shuffled", 1)):
            torch.manual_seed(run.seed)  # the same noise and timesteps each time
            with run.autocast():
                values = [
                    loss(shown, x0[i], one_hot(val.labels([rows[i - shift]]), ids, run.device))
                    for i in rows
                ]
            found[name] = float(torch.stack(values).mean())
        return found

    return validate

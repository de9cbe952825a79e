"""The ControlNet of 3D-LLDM (Zhang & Agrawala, arXiv 2302.05543): label maps guide the LDM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from monai.networks.nets import ControlNet, DiffusionModelUNet
from pydantic import Field
from torch import Tensor, nn

from bench.errors import InputError
from bench.generator import Frozen
from bench.training import TrainingConfig
from generators.condition import Condition, label_autoencoder
from generators.data import label_ids
from generators.diffusion import Predict, TimestepConfig
from generators.diffusion_fit import DiffusionConfig
from generators.label_autoencoder import LabelAutoencoderConfig

if TYPE_CHECKING:
    from bench.run import Run


class ControlTimesteps(TimestepConfig):
    """Timesteps of ControlNet training: layout is decided where noise is high."""

    distribution: Literal["uniform", "logit-normal"] = Field(
        "logit-normal", description="of t / T, where 1 is pure noise"
    )
    loc: float = Field(1.0, description="logit-normal's location; above 0 is more noise")


class ControlNetConfig(Frozen):
    """The ControlNet and its training on real label maps."""

    condition: Literal["full-resolution", "latent"] = Field(
        "full-resolution",
        description="what guides: the one-hot label map, or its latents in the label autoencoder "
        "(eq. 6 of the paper), in which thin structures are coarser",
    )
    embedding_channels: tuple[int, ...] = Field(
        (16, 32, 64),
        min_length=1,
        description="widths of the embedding of the condition; each after the first halves it, "
        "down to the latents of the image: one width where these have the condition's size",
    )
    draw: ControlTimesteps = Field(ControlTimesteps(), description="timesteps seen in training")
    train_ldm: bool = Field(
        False, description="train the LDM too instead of freezing it, as a ControlNet's should be"
    )
    structure_weight: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="label name -> how much its voxels count in the loss, such as HCC: 100 (as "
        "MAISI's tumours do); others count 1, or what balance gives them",
    )
    balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="voxels count by their label's share of the voxels to minus this power, the "
        "commonest label's 1; 0 is off",
    )
    max_weight: float = Field(100.0, ge=1, description="largest weight that balance gives")
    training: TrainingConfig = Field(TrainingConfig(), description="optimisation")

    @property
    def weighs(self) -> bool:
        """Whether voxels count differently in the loss."""
        return bool(self.balance or self.structure_weight)


def check_embedding(
    config: ControlNetConfig, image_factor: int, label_factor: int, where: str
) -> None:
    """InputError unless the embedding shrinks the condition to the size of the image's latents.

    `image_factor`, `label_factor`: voxels along a side of a latent voxel of each autoencoder.
    """
    widths = len(config.embedding_channels)
    latent = config.condition == "latent"
    shrunk = (label_factor if latent else 1) << (widths - 1)
    if shrunk == image_factor:
        return
    if latent and label_factor > image_factor:
        raise InputError(
            f"{where}.condition is latent, but the label autoencoder shrinks {label_factor} times "
            f"and the image autoencoder {image_factor} times; the label's latents must not be the "
            "coarser: change label_autoencoder, or choose full-resolution."
        )
    before = f", the label autoencoder's {label_factor} times included" if latent else ""
    raise InputError(
        f"{where}.embedding_channels has {widths} widths and shrinks the label map {shrunk} times"
        f"{before}, the autoencoder shrinks the image {image_factor} times; give one width more "
        "than there are halvings."
    )


def build_controlnet(
    config: ControlNetConfig, ldm: DiffusionConfig, unet: DiffusionModelUNet, channels: int
) -> ControlNet:
    """A ControlNet that begins as a copy of the LDM's encoder and adds exactly 0 to it.

    Its condition has `channels` channels. Full-resolution one-hot maps stay at full size up to the
    embedding: shrunk to the latent grid first, thin vessels would vanish.
    """
    network = ControlNet(
        in_channels=unet.in_channels,
        conditioning_embedding_in_channels=channels,
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


def condition_channels(config: ControlNetConfig, labels: LabelAutoencoderConfig, run: Run) -> int:
    """Channels of the condition."""
    if config.condition == "latent":
        return labels.latent_channels
    return len(label_ids(run.label_names))


def trained_condition(
    config: ControlNetConfig, labels: LabelAutoencoderConfig, scale: float, run: Run
) -> Condition:
    """The condition of a fitted ControlNet; `scale` is the one in its state."""
    network = label_autoencoder(labels, run) if config.condition == "latent" else None
    return Condition(label_ids(run.label_names), run.device, network, scale)

"""How image autoencoders are trained: the terms of their loss, what is watched and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.generator import Frozen
from bench.training import Batches, TrainingConfig, adamw, train
from generators.data import images, psnr, random_patches, to_unit_range
from generators.diffusion_fit import VALIDATION_CASES
from generators.patch_pca import fit_patch_pca
from generators.perceptual import PerceptualConfig, gradient_difference, load_perceptual
from generators.tiling import TiledAutoencoder, TiledConfig, check_tiling
from generators.unet import Grid

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet

Reconstruct = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]  # -> (reconstruction, penalty)
PREVIEWS = 4


class AdversarialConfig(Frozen):
    """A patch discriminator on reconstructions (least squares)."""

    weight: float = Field(0.01, ge=0, description="weight of the adversarial term; 0 is off")
    start: int = Field(5000, ge=0, description="steps of plain reconstruction before it")
    channels: int = Field(64, gt=0, description="width of the discriminator's first layer")
    layers: int = Field(3, gt=0, description="strided layers of the discriminator")

    def smallest_side(self) -> int:
        """Voxels that leave the instance norm of the last hidden layer more than one value."""
        return 3 << self.layers


class ReconstructionConfig(TiledConfig):
    """The loss of an image autoencoder: L1, and what is asked for beside it."""

    gradient_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the L1 distance of neighbouring voxels' differences, which costs a "
        "blur more than L1 does and needs no pretrained weights; 0 is off",
    )
    perceptual: PerceptualConfig = Field(PerceptualConfig(), description="perceptual term")
    adversarial: AdversarialConfig = Field(AdversarialConfig(), description="adversarial term")

    @property
    def code_channels(self) -> int:
        """Numbers in the code of factor³ voxels."""
        raise NotImplementedError


def check_reconstruction(config: ReconstructionConfig, grid: Grid, where: str) -> None:
    """InputError if patches or volumes of `grid` do not fit, or a term of the loss lacks files."""
    check_tiling(config, grid, where)
    check_adversarial(config.adversarial, config.trained_on(grid), where)
    load_perceptual(config.perceptual, where)


def check_adversarial(config: AdversarialConfig, grid: Grid, where: str) -> None:
    """InputError if volumes of `grid` are too small for the discriminator."""
    if config.weight and min(grid) < config.smallest_side():
        raise InputError(
            f"{where}.adversarial.layers is {config.layers}, which needs sides of at least "
            f"{config.smallest_side()}, the grid is {grid}; use fewer layers or weight 0."
        )


def fit_reconstruction(
    network: TiledAutoencoder,
    reconstruct: Reconstruct,
    config: ReconstructionConfig,
    training: TrainingConfig,
    train_set: VolumeSet,
    val: VolumeSet,
    run: Run,
    monitor: Callable[[nn.Module], Mapping[str, float]] = lambda _: {},
) -> dict[str, Tensor]:
    """Train an image autoencoder; the state dict kept, which `network` then has.

    `reconstruct(network, x)` is what is trained; what is watched is a volume's way through the
    cached latents and back, tile by tile where `config` says so. The curve has the PSNR of
    validation images in [0, 1] and whatever `monitor(network)` measures; recorded in the end are
    "psnr" of the kept network and "psnr_patch_pca", that of a linear code of the same size.
    """
    networks, optimizers = _with_discriminator(network, config.adversarial, training, run)
    order = Batches(len(train_set), training.batch_size, run.seed)
    watched = list(range(min(len(val), VALIDATION_CASES)))
    shown = val if watched else train_set

    def validate(nets: Mapping[str, nn.Module]) -> dict[str, float]:
        found = _mean_psnr(nets["autoencoder"], val, watched, run)
        return {"psnr": found, **monitor(nets["autoencoder"])}

    kept = train(
        run,
        networks,
        reconstruction_losses(reconstruct, config, run.device),
        lambda step: (step, _batch(config, train_set, order(step), run)),
        training,
        optimizers=optimizers,
        average=["autoencoder"],
        validate=validate if watched else None,
        select="psnr",
        preview=lambda nets: _pairs(nets["autoencoder"], shown, run),
    )["autoencoder"]
    network.load_state_dict(kept)
    if watched:
        found = _mean_psnr(network.to(run.device).eval(), val, watched, run)
        linear = fit_patch_pca(train_set, config.factor, config.code_channels, run.seed)
        run.record("psnr", found)
        run.record("psnr_patch_pca", linear.psnr(val, watched))
    return kept


def _batch(config: ReconstructionConfig, volumes: VolumeSet, rows: list[int], run: Run) -> Tensor:
    return random_patches(images(volumes, rows, run.device), config.training_patch)


@torch.no_grad()
def _round_trip(network: nn.Module, x: Tensor, run: Run) -> Tensor:
    """Whole images (B, 1, D, H, W) by way of their cached latents, in float32."""
    autoencoder = cast(TiledAutoencoder, network)
    with run.autocast():
        return autoencoder.decode_volume(autoencoder.encode_volume(x)).float()


def _mean_psnr(network: nn.Module, volumes: VolumeSet, cases: list[int], run: Run) -> float:
    each = []
    for i in cases:
        x = images(volumes, [i], run.device)
        each.append(psnr(_round_trip(network, x, run), x))
    return float(torch.cat(each).mean())


def _pairs(network: nn.Module, volumes: VolumeSet, run: Run) -> NDArray[np.float32]:
    """Real, reconstruction, real, reconstruction, …: (2 n, D, H, W) in [0, 1]."""
    rows = []
    for i in range(min(len(volumes), PREVIEWS)):
        x = images(volumes, [i], run.device)
        rows += [to_unit_range(x), to_unit_range(_round_trip(network, x, run))]
    return np.concatenate(rows)


def _with_discriminator(
    network: nn.Module, adversarial: AdversarialConfig, training: TrainingConfig, run: Run
) -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    networks: dict[str, nn.Module] = {"autoencoder": network}
    if adversarial.weight:
        networks["discriminator"] = PatchDiscriminator(
            spatial_dims=3,
            channels=adversarial.channels,
            in_channels=1,
            num_layers_d=adversarial.layers,
            norm="INSTANCE",  # batch norm has no statistics at batch 1
        )
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: adamw(list(net.to(run.device).parameters()), training)
        for name, net in networks.items()
    }
    return networks, optimizers


def reconstruction_losses(
    reconstruct: Reconstruct, config: ReconstructionConfig, device: torch.device
) -> Callable[[Mapping[str, nn.Module], tuple[int, Tensor]], Iterator[tuple[str, Tensor]]]:
    """Losses of (step, images): L1 + penalty + the terms of `config`, then the discriminator's.

    The adversarial term and the discriminator begin at its `start`; both are least squares on the
    discriminator's output itself (Mao et al., arXiv 1611.04076), without an activation.
    """
    adversarial = config.adversarial
    judge = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    perceptual = load_perceptual(config.perceptual, "autoencoder")
    if perceptual is not None:
        perceptual.to(device)

    def losses(
        networks: Mapping[str, nn.Module], batch: tuple[int, Tensor]
    ) -> Iterator[tuple[str, Tensor]]:
        step, x = batch
        y, penalty = reconstruct(networks["autoencoder"], x)
        y = y.float()
        loss = F.l1_loss(y, x) + penalty
        if config.gradient_weight:
            loss = loss + config.gradient_weight * gradient_difference(y, x)
        if perceptual is not None:
            loss = loss + config.perceptual.weight * perceptual(y, x)
        if not adversarial.weight or step < adversarial.start:
            yield "autoencoder", loss
            return
        discriminator = networks["discriminator"]
        verdict = discriminator(y)[-1].float()
        yield "autoencoder", loss + adversarial.weight * judge(verdict, True, False)
        fake, real = discriminator(y.detach())[-1].float(), discriminator(x)[-1].float()
        yield "discriminator", (judge(fake, False, True) + judge(real, True, True)) / 2

    return losses

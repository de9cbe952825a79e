"""Image autoencoders: the KL autoencoder and what both image autoencoders share in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import AutoencoderKL, PatchDiscriminator
from monai.networks.utils import pixelshuffle, pixelunshuffle
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.generator import Frozen, State
from bench.training import Batches, TrainingConfig, adamw, train
from generators.data import images
from generators.diffusion import chunks
from generators.diffusion_fit import VALIDATION_CASES
from generators.unet import Grid, check_divisible, check_groups

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet

Reconstruct = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]  # -> (reconstruction, penalty)


class AutoencoderTraining(TrainingConfig):
    """Training of an autoencoder."""

    ema_decay: float = Field(
        0.995, ge=0, lt=1, description="decay of the averaged weights that are kept; 0 is off"
    )


class KLConfig(Frozen):
    """A KL-regularised autoencoder (Rombach et al., arXiv 2112.10752)."""

    space_to_depth: int = Field(
        1,
        gt=0,
        description="blocks of this side become channels first: a large saving at full size",
    )
    channels: tuple[int, ...] = Field(
        (64, 128, 256),
        min_length=1,
        description="width of each level; each after the first halves the grid",
    )
    num_res_blocks: int = Field(2, gt=0, description="residual blocks in each level")
    norm_groups: int = Field(32, gt=0, description="groups of GroupNorm; divides every width")
    latent_channels: int = Field(4, gt=0, description="channels of the latent grid")
    kl_weight: float = Field(1e-6, ge=0, description="weight of the mean KL divergence to N(0, 1)")
    training: AutoencoderTraining = Field(AutoencoderTraining(), description="optimisation")

    @property
    def factor(self) -> int:
        """Voxels of the image along one side of a latent voxel."""
        halvings = len(self.channels) - 1
        return self.space_to_depth << halvings


class AdversarialConfig(Frozen):
    """A patch discriminator on reconstructions (least squares); there is no perceptual term,
    since its weights are a download."""

    weight: float = Field(0.01, ge=0, description="weight of the adversarial term; 0 is off")
    start: int = Field(5000, ge=0, description="steps of plain reconstruction before it")
    channels: int = Field(64, gt=0, description="width of the discriminator's first layer")
    layers: int = Field(3, gt=0, description="strided layers of the discriminator")

    def smallest_side(self) -> int:
        """Voxels that leave the instance norm of the last hidden layer more than one value."""
        return 3 << self.layers


class ImageAutoencoderConfig(KLConfig):
    """The image autoencoder: L1 + KL, and an adversarial term after a while."""

    adversarial: AdversarialConfig = Field(AdversarialConfig(), description="adversarial term")


class KLAutoencoder(nn.Module):
    """MONAI's AutoencoderKL without attention, behind an optional space-to-depth."""

    def __init__(self, config: KLConfig, channels: int) -> None:
        super().__init__()
        self.block = config.space_to_depth
        packed = channels * self.block**3
        levels = len(config.channels)
        self.net = AutoencoderKL(
            spatial_dims=3,
            in_channels=packed,
            out_channels=packed,
            channels=config.channels,
            num_res_blocks=config.num_res_blocks,
            attention_levels=(False,) * levels,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        # Little noise at first: a short fit would spend its steps on learning to silence it.
        nn.init.constant_(self.net.quant_conv_log_sigma.conv.bias, -4.0)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of x (B, C, D, H, W)."""
        mu, sigma = self.net.encode(pixelunshuffle(x, 3, self.block))
        return mu, sigma

    def decode(self, z: Tensor) -> Tensor:
        decoded: Tensor = pixelshuffle(self.net.decode(z), 3, self.block)
        return decoded

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction of a sampled latent, and the latents' mean and standard deviation."""
        mu, sigma = self.encode(x)
        return self.decode(mu + sigma * torch.randn_like(sigma)), mu, sigma


def kl_divergence(mu: Tensor, sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma²) ‖ N(0, 1)) in float32, mean over latent values."""
    mu, variance = mu.float(), sigma.float().square()
    return 0.5 * (mu.square() + variance - variance.clamp(min=1e-12).log() - 1).mean()


def check_autoencoder(config: KLConfig, grid: Grid, where: str) -> None:
    """InputError if the autoencoder cannot be built or cannot take `grid`."""
    check_groups(config.channels, config.norm_groups, where)
    check_divisible(grid, config.factor, where)


def check_adversarial(config: AdversarialConfig, grid: Grid, where: str) -> None:
    """InputError if volumes of `grid` are too small for the discriminator."""
    if config.weight and min(grid) < config.smallest_side():
        raise InputError(
            f"{where}.adversarial.layers is {config.layers}, which needs sides of at least "
            f"{config.smallest_side()}, the grid is {grid}; use fewer layers or weight 0."
        )


def latent_grid(factor: int, grid: Grid) -> Grid:
    """Grid of latents `factor` times coarser than `grid`."""
    a, b, c = (side // factor for side in grid)
    return a, b, c


def fit_image_autoencoder(
    config: ImageAutoencoderConfig, train_set: VolumeSet, val: VolumeSet, run: Run
) -> State:
    """Stage "image-autoencoder": L1 + KL, the mean's reconstruction watched on `val`."""
    torch.manual_seed(run.seed)
    network = KLAutoencoder(config, channels=1)

    def reconstruct(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        if not net.training:
            return net.decode(net.encode(x)[0]), x.new_zeros(())  # type: ignore[operator]
        reconstruction, mu, sigma = net(x)
        return reconstruction, config.kl_weight * kl_divergence(mu, sigma)

    kept = fit_reconstruction(
        network, reconstruct, config.adversarial, config.training, train_set, val, run
    )
    return {"autoencoder": kept}


def fit_reconstruction(
    network: nn.Module,
    reconstruct: Reconstruct,
    adversarial: AdversarialConfig,
    training: TrainingConfig,
    train_set: VolumeSet,
    val: VolumeSet,
    run: Run,
    monitor: Callable[[nn.Module], Mapping[str, float]] = lambda _: {},
) -> dict[str, Tensor]:
    """Train an image autoencoder on L1 + penalty + adversarial term; the state dict kept.

    Records the PSNR of validation images in [0, 1] and whatever `monitor(network)` measures.
    """
    networks, optimizers = _with_discriminator(network, adversarial, training, run)
    order = Batches(len(train_set), training.batch_size, run.seed)
    watched = list(range(min(len(val), VALIDATION_CASES)))

    def validate(shown: Mapping[str, nn.Module]) -> dict[str, float]:
        errors = []
        for rows in chunks(watched, training.batch_size):
            x = images(val, rows, run.device)
            with run.autocast():
                y = reconstruct(shown["autoencoder"], x)[0].float().clamp(-1, 1)
            errors += ((x - y) / 2).square().mean(dim=(1, 2, 3, 4)).tolist()
        psnr = -10 * torch.tensor(errors).clamp(min=1e-10).log10().mean()
        return {"psnr": float(psnr), **monitor(shown["autoencoder"])}

    kept = train(
        run,
        networks,
        _reconstruction_losses(reconstruct, adversarial),
        lambda step: (step, images(train_set, order(step), run.device)),
        training,
        optimizers=optimizers,
        average=["autoencoder"],
        validate=validate if watched else None,
    )
    return kept["autoencoder"]


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


def _reconstruction_losses(
    reconstruct: Reconstruct, adversarial: AdversarialConfig
) -> Callable[[Mapping[str, nn.Module], tuple[int, Tensor]], Iterator[tuple[str, Tensor]]]:
    judge = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def losses(
        networks: Mapping[str, nn.Module], batch: tuple[int, Tensor]
    ) -> Iterator[tuple[str, Tensor]]:
        step, x = batch
        y, penalty = reconstruct(networks["autoencoder"], x)
        y = y.float()
        loss = F.l1_loss(y, x) + penalty
        if not adversarial.weight or step < adversarial.start:
            yield "autoencoder", loss
            return
        discriminator = networks["discriminator"]
        verdict = discriminator(y)[-1].float()
        yield "autoencoder", loss + adversarial.weight * judge(verdict, True, False)
        fake, real = discriminator(y.detach())[-1].float(), discriminator(x)[-1].float()
        yield "discriminator", (judge(fake, False, True) + judge(real, True, True)) / 2

    return losses

"""The KL autoencoder of images, and what that of label maps shares with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.networks.nets import AutoencoderKL
from monai.networks.utils import pixelshuffle, pixelunshuffle
from pydantic import Field
from torch import Tensor, nn

from bench.errors import InputError
from bench.generator import State
from bench.training import TrainingConfig
from generators.linear_shortcut import LinearShortcut
from generators.patch_pca import fit_patch_pca
from generators.reconstruction import (
    ReconstructionConfig,
    check_reconstruction,
    fit_reconstruction,
)
from generators.tiling import TiledAutoencoder, TiledConfig, check_tiling
from generators.unet import Grid, check_groups

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet


class AutoencoderTraining(TrainingConfig):
    """Training of an autoencoder."""

    ema_decay: float = Field(
        0.995, ge=0, lt=1, description="decay of the averaged weights that are kept; 0 is off"
    )


class KLConfig(TiledConfig):
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


class ImageAutoencoderConfig(KLConfig, ReconstructionConfig):
    """The image autoencoder: L1 + KL, an adversarial term after a while, others on request."""

    linear_shortcut: bool = Field(
        False,
        description="add the principal components of the training patches to latents and "
        "reconstruction, so that the network learns only what a linear code lacks: for short fits",
    )

    @property
    def code_channels(self) -> int:
        """Numbers in the code of factor³ voxels."""
        return self.latent_channels


class KLAutoencoder(TiledAutoencoder):
    """MONAI's AutoencoderKL without attention, behind an optional space-to-depth."""

    def __init__(self, config: KLConfig, channels: int) -> None:
        super().__init__(config)
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
        self.shortcut: LinearShortcut | None = None
        if isinstance(config, ImageAutoencoderConfig) and config.linear_shortcut:
            self.shortcut = LinearShortcut(config.factor, config.latent_channels)
            # The network adds nothing yet: the fit begins as good as the linear code.
            for last in (self.net.quant_conv_mu.conv, self.net.decoder.blocks[-1].conv):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            nn.init.constant_(self.net.quant_conv_log_sigma.conv.bias, -8.0)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of x (B, C, D, H, W)."""
        mu, sigma = self.net.encode(pixelunshuffle(x, 3, self.block))
        return (mu if self.shortcut is None else mu + self.shortcut.encode(x)), sigma

    def latents(self, x: Tensor) -> Tensor:
        """The latents' mean: a frozen draw would teach one noise pattern for each case."""
        return self.encode(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """Images in about [-1, 1], or logits of label maps, of latents (B, c, d, h, w)."""
        decoded: Tensor = pixelshuffle(self.net.decode(z), 3, self.block)
        return decoded if self.shortcut is None else decoded + self.shortcut.decode(z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction of a sampled latent, and the latents' mean and standard deviation."""
        mu, sigma = self.encode(x)
        return self.decode(mu + sigma * torch.randn_like(sigma)), mu, sigma


def kl_divergence(mu: Tensor, sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma²) ‖ N(0, 1)) in float32, mean over latent values."""
    mu, variance = mu.float(), sigma.float().square()
    return 0.5 * (mu.square() + variance - variance.clamp(min=1e-12).log() - 1).mean()


def check_autoencoder(config: KLConfig, grid: Grid, where: str) -> None:
    """InputError if the autoencoder cannot be built, cannot be trained, or cannot take `grid`."""
    check_groups(config.channels, config.norm_groups, where)
    if isinstance(config, ReconstructionConfig):
        check_reconstruction(config, grid, where)
    else:
        check_tiling(config, grid, where)
    if isinstance(config, ImageAutoencoderConfig) and config.linear_shortcut:
        _check_shortcut(config, where)
    _check_norm(config, grid, where)


def _check_shortcut(config: ImageAutoencoderConfig, where: str) -> None:
    """InputError if patches have fewer voxels than the code has numbers."""
    if config.latent_channels > config.factor**3:
        raise InputError(
            f"{where}.latent_channels is {config.latent_channels}, more than the "
            f"{config.factor**3} voxels that a linear_shortcut codes with them; lower it or leave "
            "the shortcut out."
        )


def _check_norm(config: KLConfig, grid: Grid, where: str) -> None:
    """InputError if a group of the deepest normalisation is a single value, which has no spread."""
    for seen in (grid, config.training_patch, config.tile):
        if seen is None:
            continue
        shown = tuple(min(pair) for pair in zip(seen, grid, strict=True))
        if any(side > config.factor for side in shown):
            continue
        if config.channels[-1] == config.norm_groups:
            raise InputError(
                f"{where}.norm_groups is {config.norm_groups}, as many as the last of "
                f"{where}.channels, and {shown} voxels become one latent voxel, so that there is "
                "nothing to normalise over; use fewer groups, fewer levels or larger sides."
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
    if network.shortcut is not None:
        network.shortcut.start_from(
            fit_patch_pca(train_set, config.factor, config.latent_channels, run.seed)
        )

    def reconstruct(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        y, mu, sigma = net(x)
        return y, config.kl_weight * kl_divergence(mu, sigma)

    kept = fit_reconstruction(network, reconstruct, config, config.training, train_set, val, run)
    return {"autoencoder": kept}

"""Latent diffusion: LDM-VAE and LDM-VQVAE (Rombach et al., arXiv 2112.10752, in 3D)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.generator import Generator, GeneratorConfig, Stage, State, register_generator
from bench.volumes import Sample
from generators.autoencoders import (
    ImageAutoencoderConfig,
    KLAutoencoder,
    check_autoencoder,
    fit_image_autoencoder,
    latent_grid,
)
from generators.data import images, to_unit_range
from generators.diffusion import make_process
from generators.diffusion_fit import Decode, DiffusionConfig
from generators.latents import Encode, fit_latent_diffusion, loaded
from generators.sampler import SamplingConfig, check_sampling, chunks, denoise
from generators.unet import Grid, build_unet, check_unet
from generators.vqvae import ImageVQVAE, VQVAEConfig, check_vqvae, fit_vqvae

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet


class LDMVAEConfig(GeneratorConfig):
    """Configuration of LDM-VAE."""

    autoencoder: ImageAutoencoderConfig = Field(
        ImageAutoencoderConfig(), description="image autoencoder"
    )
    ldm: DiffusionConfig = Field(DiffusionConfig(), description="diffusion in its latents")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how volumes are drawn")


class LDMVQVAEConfig(GeneratorConfig):
    """Configuration of LDM-VQVAE."""

    autoencoder: VQVAEConfig = Field(VQVAEConfig(), description="image VQ-VAE")
    ldm: DiffusionConfig = Field(DiffusionConfig(), description="diffusion in its latents")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how volumes are drawn")


def image_stages(autoencoder: ImageAutoencoderConfig, ldm: DiffusionConfig) -> tuple[Stage, Stage]:
    """ "image-autoencoder" and "image-ldm"; LDM-VAE and 3D-LLDM with equal values share them."""
    return (
        Stage("image-autoencoder", autoencoder, partial(fit_image_autoencoder, autoencoder)),
        Stage(
            "image-ldm",
            ldm,
            partial(_fit_image_ldm, autoencoder, ldm),
            needs=("image-autoencoder",),
        ),
    )


def image_autoencoder(config: ImageAutoencoderConfig, run: Run) -> KLAutoencoder:
    """The trained image autoencoder, frozen."""
    network: KLAutoencoder = loaded(
        KLAutoencoder(config, channels=1), run.state("image-autoencoder")["autoencoder"], run
    )
    return network


def image_encoder(network: KLAutoencoder | ImageVQVAE, run: Run) -> Encode:
    """Latents of the images of a volume set, in tiles where the autoencoder's configuration says
    so; the mean of a KL autoencoder's."""
    return lambda volumes, i: network.encode_volume(images(volumes, [i], run.device))


def image_decoder(network: KLAutoencoder | ImageVQVAE, run: Run) -> Decode:
    """Images of unscaled latents (B, C, d, h, w), as one array (B, D, H, W) in [0, 1]."""
    return lambda z: np.stack(list(decode_images(network, z, run)))


def _fit_image_ldm(
    autoencoder: ImageAutoencoderConfig,
    ldm: DiffusionConfig,
    train_set: VolumeSet,
    val: VolumeSet,
    run: Run,
) -> State:
    network = image_autoencoder(autoencoder, run)
    encode, decode = image_encoder(network, run), image_decoder(network, run)
    return fit_latent_diffusion(ldm, encode, train_set, val, run, decode)


def _fit_vq_ldm(
    autoencoder: VQVAEConfig, ldm: DiffusionConfig, train_set: VolumeSet, val: VolumeSet, run: Run
) -> State:
    network = image_vqvae(autoencoder, run)
    encode, decode = image_encoder(network, run), image_decoder(network, run)
    return fit_latent_diffusion(ldm, encode, train_set, val, run, decode)


def image_vqvae(config: VQVAEConfig, run: Run) -> ImageVQVAE:
    """The trained VQ-VAE, frozen; in eval mode its codebook learns nothing."""
    network: ImageVQVAE = loaded(ImageVQVAE(config), run.state("image-vqvae")["autoencoder"], run)
    return network


def sample_images(
    network: KLAutoencoder | ImageVQVAE,
    ldm: DiffusionConfig,
    stage: str,
    latent_shape: tuple[int, int, int, int],
    sampling: SamplingConfig,
    indices: Sequence[int],
    run: Run,
) -> Iterator[Sample]:
    """Noise → latent by the LDM of `stage` → image by the autoencoder, for each index in order."""
    state = run.state(stage)
    unet = loaded(build_unet(ldm.unet, latent_shape[0]), state["unet"], run)
    process = make_process(ldm.process)
    for rows in chunks(indices, sampling.batch_size):
        z = denoise(process, unet, rows, latent_shape, sampling, run) / state["scale"]
        for image in decode_images(network, z, run):
            yield Sample(image)


def decode_images(
    network: KLAutoencoder | ImageVQVAE, z: Tensor, run: Run
) -> Iterator[NDArray[np.float32]]:
    """Images (D, H, W) in [0, 1] of unscaled latents (B, C, d, h, w), decoded one at a time."""
    for i in range(len(z)):
        with torch.no_grad(), run.autocast():
            x = network.decode_volume(z[i : i + 1])
        yield to_unit_range(x)[0]


@register_generator("ldm-vae")
class LDMVAE(Generator):
    """3D latent diffusion in the latents of a KL autoencoder."""

    Config = LDMVAEConfig
    config: LDMVAEConfig

    def check(self, grid: Grid, label_names: Mapping[int, str]) -> None:
        check_image_model(self.config.autoencoder, self.config.ldm, grid)
        check_sampling(self.config.sampling, self.config.ldm.process)

    def stages(self) -> Sequence[Stage]:
        return image_stages(self.config.autoencoder, self.config.ldm)

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        c = self.config
        network = image_autoencoder(c.autoencoder, run)
        shape = (c.autoencoder.latent_channels, *latent_grid(c.autoencoder.factor, run.grid))
        yield from sample_images(network, c.ldm, "image-ldm", shape, c.sampling, indices, run)


def check_image_model(
    autoencoder: ImageAutoencoderConfig, ldm: DiffusionConfig, grid: Grid
) -> None:
    """InputError if the image autoencoder or its LDM cannot take volumes of `grid`."""
    check_autoencoder(autoencoder, grid, "autoencoder")
    check_unet(ldm.unet, latent_grid(autoencoder.factor, grid), "ldm.unet")


@register_generator("ldm-vqvae")
class LDMVQVAE(Generator):
    """3D latent diffusion in the latents of a VQ-VAE."""

    Config = LDMVQVAEConfig
    config: LDMVQVAEConfig

    def check(self, grid: Grid, label_names: Mapping[int, str]) -> None:
        c = self.config
        check_vqvae(c.autoencoder, grid, "autoencoder")
        check_unet(c.ldm.unet, latent_grid(c.autoencoder.factor, grid), "ldm.unet")
        check_sampling(c.sampling, c.ldm.process)

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return (
            Stage("image-vqvae", c.autoencoder, partial(fit_vqvae, c.autoencoder)),
            Stage(
                "vq-ldm", c.ldm, partial(_fit_vq_ldm, c.autoencoder, c.ldm), needs=("image-vqvae",)
            ),
        )

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        c = self.config
        shape = (c.autoencoder.embedding_dim, *latent_grid(c.autoencoder.factor, run.grid))
        yield from sample_images(
            image_vqvae(c.autoencoder, run), c.ldm, "vq-ldm", shape, c.sampling, indices, run
        )

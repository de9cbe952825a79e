"""Latent diffusion: LDM-VAE and LDM-VQVAE (Rombach et al., arXiv 2112.10752, in 3D)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from bench.generator import Generator, GeneratorConfig, Stage, State, register_generator
from bench.volumes import Sample
from generators.autoencoders import (
    ImageAutoencoderConfig,
    KLAutoencoder,
    check_adversarial,
    check_autoencoder,
    fit_image_autoencoder,
    latent_grid,
)
from generators.data import images, to_unit_range
from generators.diffusion import SamplingConfig, check_sampling, chunks, denoise, make_process
from generators.diffusion_fit import DiffusionConfig
from generators.latents import Encode, fit_latent_diffusion, loaded
from generators.unet import Grid, build_unet, check_unet
from generators.vqvae import ImageVQVAE, VQVAEConfig, check_vqvae, fit_vqvae

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet


class LDMVAEConfig(GeneratorConfig):
    """Configuration of LDM-VAE."""

    autoencoder: ImageAutoencoderConfig = Field(ImageAutoencoderConfig(), description="image autoencoder")
    ldm: DiffusionConfig = Field(DiffusionConfig(), description="diffusion in its latents")
    sampling: SamplingConfig = Field(SamplingConfig(steps=250), description="how volumes are drawn")


class LDMVQVAEConfig(GeneratorConfig):
    """Configuration of LDM-VQVAE."""

    autoencoder: VQVAEConfig = Field(VQVAEConfig(), description="image VQ-VAE")
    ldm: DiffusionConfig = Field(DiffusionConfig(), description="diffusion in its latents")
    sampling: SamplingConfig = Field(SamplingConfig(steps=250), description="how volumes are drawn")



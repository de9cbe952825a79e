"""Which grids the presets' generators take: what passes `check` fits through every network.

The networks are built on the meta device, where shapes are computed and no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.errors import InputError
from bench.generator import Generator
from bench.presets import read_preset
from generators.autoencoders import ImageAutoencoderConfig, KLAutoencoder
from generators.control import build_controlnet
from generators.ddpm import DDPM3D
from generators.diffusion_fit import DiffusionConfig
from generators.ha_gan import HAGAN
from generators.ha_gan.geometry import Geometry
from generators.ha_gan.model import build
from generators.ldm import LDMVAE, LDMVQVAE
from generators.lldm import LLDM3D
from generators.unet import build_unet
from generators.vqvae import ImageVQVAE

Grid = tuple[int, int, int]
Shape = tuple[int, ...]

LABELS = {0: "background", 1: "liver", 2: "portal vein", 3: "hepatic vein", 4: "HCC"}
MODELS = {"ha-gan": HAGAN, "3d-ddpm": DDPM3D, "ldm-vqvae": LDMVQVAE, "ldm-vae": LDMVAE}
ALL: dict[str, type[Generator]] = {**MODELS, "3d-lldm": LLDM3D}
PRESETS = ("quick", "small", "paper")
GRIDS: list[Grid] = [(32, 48, 64), (48, 64, 48), (32, 32, 160)]
PAPER_GRID = (128, 128, 128)


def make(preset: str, name: str, **changes: Any) -> Generator:
    model = ALL[name]
    return model(
        model.Config.model_validate({**read_preset(preset)["generators"][name], **changes})
    )


def passes(generator: Generator, grid: Grid) -> bool:
    try:
        generator.check(grid, LABELS)
    except InputError:
        return False
    return True


def shapes(generator: Generator, grid: Grid) -> Iterator[tuple[str, Shape, Shape]]:
    """(what, its shape, the shape it shall have) for all that the networks give."""
    with torch.no_grad(), torch.device("meta"):
        parts = {HAGAN: of_gan, DDPM3D: of_ddpm, LDMVQVAE: of_latent, LDMVAE: of_latent}
        for what, found, expected in parts.get(type(generator), of_lldm)(generator.config, grid):
            yield what, tuple(found.shape), expected


def of_gan(c: Any, grid: Grid) -> Iterator[tuple[str, Tensor, Shape]]:
    geometry = Geometry(grid)
    networks: Any = build(geometry, c)
    noise = torch.empty(1, c.latent_dim)
    yield "volume", networks["generator"](noise), (1, 1, *grid)
    slab, low = networks["generator"].slab_and_low(noise, 0)
    yield "logit", networks["discriminator"](slab, low, 0), (1, 1)


def of_ddpm(c: Any, grid: Grid) -> Iterator[tuple[str, Tensor, Shape]]:
    block = c.diffusion.space_to_depth
    yield of_unet(c.diffusion, (1, block**3, *(n // block for n in grid)))


def of_unet(c: DiffusionConfig, shape: Shape) -> tuple[str, Tensor, Shape]:
    found = build_unet(c.unet, channels=shape[1])(torch.empty(shape), torch.ones(1))
    return "denoised", found, shape


def of_latent(c: Any, grid: Grid) -> Iterator[tuple[str, Tensor, Shape]]:
    image = isinstance(c.autoencoder, ImageAutoencoderConfig)
    network: Any = KLAutoencoder(c.autoencoder, 1) if image else ImageVQVAE(c.autoencoder)
    if not image:
        network.net.quantizer = Unquantised()
    yield from of_autoencoder(network.eval(), 1, c, grid)


class Unquantised(nn.Module):
    """In place of the quantiser, which keeps shapes and asks for an autocast that meta lacks."""

    def forward(self, z: Tensor) -> tuple[int, Tensor]:
        return 0, z


def of_autoencoder(
    network: Any, channels: int, c: Any, grid: Grid
) -> Iterator[tuple[str, Tensor, Shape]]:
    z = network.latents(torch.empty(1, channels, *grid))
    factor = c.autoencoder.factor
    yield "latent", z, (1, z.shape[1], *(n // factor for n in grid))
    yield of_unet(c.ldm, tuple(z.shape))
    yield "decoded", network.decode(z), (1, channels, *grid)


def of_lldm(c: Any, grid: Grid) -> Iterator[tuple[str, Tensor, Shape]]:
    yield from of_latent(c, grid)
    labels = c.model_copy(update={"autoencoder": c.label_autoencoder, "ldm": c.label_ldm})
    classes = len(LABELS)
    yield from of_autoencoder(KLAutoencoder(c.label_autoencoder, classes), classes, labels, grid)
    latent = (1, c.autoencoder.latent_channels, *(n // c.autoencoder.factor for n in grid))
    network = controlnet(c, classes)
    condition = torch.empty(1, classes, *grid)
    _, middle = network(torch.empty(latent), torch.ones(1), condition)
    yield "guidance", middle, (1, c.ldm.unet.channels[-1], *middle.shape[2:])
    embedded = network.controlnet_cond_embedding(condition)
    yield "condition", embedded, (1, c.ldm.unet.channels[0], *latent[2:])


def controlnet(c: Any, classes: int) -> nn.Module:
    unet = build_unet(c.ldm.unet, c.autoencoder.latent_channels)
    return build_controlnet(c.controlnet, c.ldm, unet, classes)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_sides_divisible_by_16(preset: str, name: str, grid: Grid) -> None:
    generator = make(preset, name)
    generator.check(grid, LABELS)
    for what, found, expected in shapes(generator, grid):
        assert found == expected, what


fitting = st.tuples(*[st.integers(2, 6).map(lambda n: 16 * n)] * 3)
sides = fitting | st.tuples(*[st.integers(4, 24).map(lambda n: 4 * n)] * 3)


@settings(deadline=None, max_examples=8)
@given(grid=sides, name=st.sampled_from(sorted(ALL)))
def test_what_passes_the_check_fits_through_every_network(grid: Grid, name: str) -> None:
    generator = make("small", name)
    if all(n % 16 == 0 and n >= 32 for n in grid):
        generator.check(grid, LABELS)
    if not passes(generator, grid):
        return
    for what, found, expected in shapes(generator, grid):
        assert found == expected, what


@pytest.mark.parametrize("name", ALL)
def test_what_does_not_fit_is_refused(name: str) -> None:
    for grid in ((33, 32, 32), (32, 32, 34)):
        with pytest.raises(InputError, match=r"multiples of 4|divisible by"):
            make("small", name).check(grid, LABELS)


# The paper's sizes


def millions(network: nn.Module) -> float:
    return sum(p.numel() for p in network.parameters()) / 1e6


def test_the_paper_preset_has_the_papers_parameters() -> None:
    classes = len(LABELS)
    for name in ALL:
        make("paper", name).check(PAPER_GRID, LABELS)
    with torch.device("meta"):
        gan = build(Geometry(PAPER_GRID), make("paper", "ha-gan").config)  # type: ignore[arg-type]
        ddpm: Any = make("paper", "3d-ddpm").config
        vq: Any = make("paper", "ldm-vqvae").config
        lldm: Any = make("paper", "3d-lldm").config
        found = {
            "HA-GAN G": gan["generator"],
            "HA-GAN D": gan["discriminator"],
            "HA-GAN E": gan["encoder"],
            "HA-GAN Sub_E": gan["sub_encoder"],
            "3D-DDPM": build_unet(ddpm.diffusion.unet, ddpm.diffusion.space_to_depth**3),
            "VAE": KLAutoencoder(lldm.autoencoder, 1),
            "label VAE": KLAutoencoder(lldm.label_autoencoder, classes),
            "LDM": build_unet(lldm.ldm.unet, lldm.autoencoder.latent_channels),
            "VQ-VAE": ImageVQVAE(vq.autoencoder),
            "LDM on VQ": build_unet(vq.ldm.unet, vq.autoencoder.embedding_dim),
            "ControlNet": controlnet(lldm, classes),
        }
    sizes = {name: millions(network) for name, network in found.items()}
    expected = {"HA-GAN G": 52.5, "HA-GAN D": 7.3, "HA-GAN E": 0.16, "HA-GAN Sub_E": 19.7}
    expected |= {"3D-DDPM": 40.6, "VAE": 21.0, "label VAE": 21.0, "LDM": 191.0}
    expected |= {"LDM on VQ": 191.0, "VQ-VAE": 22.0, "ControlNet": 80.9}
    assert sizes == pytest.approx(expected, rel=0.05)

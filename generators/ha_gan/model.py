"""Losses, fit and sampling of the hierarchical amortised GAN."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.training import Batches, Networks, adamw, train
from bench.volumes import Sample
from generators.ha_gan.geometry import Geometry
from generators.ha_gan.networks import (
    GridEncoder,
    HierarchicalDiscriminator,
    HierarchicalGenerator,
    SlabEncoder,
)

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet
    from generators.ha_gan import HAGANConfig


def fit(config: HAGANConfig, volumes: VolumeSet, run: Run) -> dict[str, Any]:
    """Train on `volumes`; {"generator": its state dict, averaged where the training averages}."""
    geometry = Geometry(run.grid)
    torch.manual_seed(run.seed)
    networks = build(geometry, config)
    batches = Batches(len(volumes), config.training.batch_size, run.seed)

    def batch(step: int) -> Tensor:
        images = torch.from_numpy(volumes.images(batches(step)))
        return (2 * images - 1).unsqueeze(1).to(run.device)

    kept = train(
        run,
        networks,
        Losses(geometry, config.latent_dim),
        batch,
        config.training,
        optimizers=adams(networks, config),
        average=["generator"],
    )
    return {"generator": kept["generator"]}


def sample(config: HAGANConfig, indices: Sequence[int], run: Run) -> Iterator[Sample]:
    """The volume of each index, in order."""
    with torch.device("meta"):  # the weights are about to be replaced: none are drawn
        network = HierarchicalGenerator(Geometry(run.grid), config.latent_dim, config.width)
    network.load_state_dict(run.state()["generator"], assign=True)
    network.eval()
    for index in indices:
        # One volume a pass: a batch of another size would round differently.
        noise = run.noise(index, (1, config.latent_dim))
        with torch.no_grad(), run.autocast():
            volume = network(noise)[0, 0].float()
        yield Sample(((volume + 1) / 2).clamp(0, 1).cpu().numpy())


def build(geometry: Geometry, config: HAGANConfig) -> dict[str, nn.Module]:
    """The networks by name, the encoders where they are to be trained."""
    latent_dim, width = config.latent_dim, config.width
    networks: dict[str, nn.Module] = {
        "generator": HierarchicalGenerator(geometry, latent_dim, width),
        "discriminator": HierarchicalDiscriminator(geometry, width),
    }
    if config.train_encoders:
        networks["encoder"] = SlabEncoder(width)
        networks["sub_encoder"] = GridEncoder(geometry, latent_dim, width)
    return networks


def adams(networks: Networks, config: HAGANConfig) -> dict[str, torch.optim.Optimizer]:
    """One Adam for each network, under its name."""
    own = {"discriminator": {"learning_rate": config.discriminator_learning_rate}}
    return {
        name: adamw(
            list(network.parameters()), config.training.model_copy(update=own.get(name, {}))
        )
        for name, network in networks.items()
    }


@dataclass(frozen=True)
class Losses:
    """The losses of one step, in the order in which the networks step: D, G, E, Sub_E."""

    geometry: Geometry
    latent_dim: int

    def __call__(self, networks: Networks, real: Tensor) -> Iterator[tuple[str, Tensor]]:
        """`real` is (B, 1, D, H, W) in [-1, 1]; all four see the slab at one random position."""
        position = int(torch.randint(self.geometry.positions, ()))
        real_slab = self.geometry.image_slab(real, position)
        real_low = self.geometry.low_resolution(real)
        generator: Any = networks["generator"]
        discriminator = networks["discriminator"]

        with torch.no_grad():
            slab, low = generator.slab_and_low(self._noise(real), position)
        logits = discriminator(torch.cat([real_slab, slab]), torch.cat([real_low, low]), position)
        on_real, on_fake = logits.float().chunk(2)
        yield "discriminator", _bce(on_real, real=True) + _bce(on_fake, real=False)

        with frozen(discriminator):
            slab, low = generator.slab_and_low(self._noise(real), position)
            logit = discriminator(slab, low, position)
        yield "generator", _bce(logit.float(), real=True)

        if "encoder" not in networks:
            return
        encoder, sub_encoder = networks["encoder"], networks["sub_encoder"]
        with frozen(generator):
            slab = generator.high(encoder(real_slab))
        yield "encoder", F.l1_loss(slab.float(), real_slab)

        with torch.no_grad():
            latent = self.encode(encoder, real)
        with frozen(generator):
            slab, low = generator.slab_and_low(sub_encoder(latent), position)
        l1 = F.l1_loss(slab.float(), real_slab) + F.l1_loss(low.float(), real_low)
        yield "sub_encoder", l1 / 2

    def encode(self, encoder: nn.Module, volume: Tensor) -> Tensor:
        """Latent grid of whole volumes, from slabs as thick as the encoder knows them.

        (B, 1, D, H, W) -> (B, 64, D/4, H/4, W/4); where the slabs do not tile the volume, the
        last one overlaps the one before.
        """
        slabs = [
            encoder(self.geometry.image_slab(volume, position))[:, :, -new:]
            for position, new in self.geometry.cover
        ]
        return torch.cat(slabs, dim=2)

    def _noise(self, real: Tensor) -> Tensor:
        return torch.randn(len(real), self.latent_dim, device=real.device)


def _bce(logit: Tensor, *, real: bool) -> Tensor:
    """Binary cross-entropy with the label "real" or "generated" (non-saturating for G)."""
    return F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, float(real)))


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Losses computed inside give the network's parameters no gradient."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)

"""Losses, fit and sampling of the hierarchical amortised GAN."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.training import Batches, Networks, adamw, train
from generators.data import to_unit_range
from generators.ha_gan.augment import augment
from generators.ha_gan.geometry import Geometry
from generators.ha_gan.networks import (
    GridEncoder,
    HierarchicalDiscriminator,
    HierarchicalGenerator,
    SlabEncoder,
)
from generators.joint import Channels

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import Sample, VolumeSet
    from generators.ha_gan import HAGANConfig

PREVIEW_VOLUMES = 4
SMALLEST_DISTANCE = 1e-3  # of two volumes: equal ones would have an infinite gradient


def fit(config: HAGANConfig, volumes: VolumeSet, run: Run) -> dict[str, Any]:
    """Train on `volumes`; {"generator": its state dict, averaged where the training averages}."""
    geometry = Geometry(run.grid)
    torch.manual_seed(run.seed)
    channels = Channels.of(config.labels, run.label_names)
    networks = build(geometry, config, channels.count)
    batches = Batches(len(volumes), config.training.batch_size, run.seed)
    kept = train(
        run,
        networks,
        Losses(geometry, config),
        lambda step: (step, channels.batch(volumes, batches(step), run.device)),
        config.training,
        optimizers=adams(networks, config),
        average=["generator"],
        preview=lambda shown: np.concatenate(
            [
                to_unit_range(_generated(shown["generator"], i, config.latent_dim, run)[:, :1])
                for i in range(PREVIEW_VOLUMES)
            ]
        ),
    )
    return {"generator": kept["generator"]}


def sample(config: HAGANConfig, indices: Sequence[int], run: Run) -> Iterator[Sample]:
    """The volume of each index, in order."""
    channels = Channels.of(config.labels, run.label_names)
    with torch.device("meta"):  # the weights are about to be replaced: none are drawn
        network = HierarchicalGenerator(
            Geometry(run.grid), config.latent_dim, config.width, channels.count
        )
    network.load_state_dict(run.state()["generator"], assign=True)
    network.eval()
    for index in indices:
        # One volume a pass: a batch of another size would round differently.
        yield from channels.samples(_generated(network, index, config.latent_dim, run))


def _generated(generator: nn.Module, index: int, latent_dim: int, run: Run) -> Tensor:
    """The volume `index`, (1, C, D, H, W) in [-1, 1]."""
    with torch.no_grad(), run.autocast():
        volume: Tensor = generator(run.noise(index, (1, latent_dim))).float()
    return volume


def build(geometry: Geometry, config: HAGANConfig, channels: int = 1) -> dict[str, nn.Module]:
    """The networks by name, the encoders where they are to be trained."""
    latent_dim, width = config.latent_dim, config.width
    networks: dict[str, nn.Module] = {
        "generator": HierarchicalGenerator(geometry, latent_dim, width, channels),
        "discriminator": HierarchicalDiscriminator(
            geometry, width, channels, batch_spread=config.batch_spread
        ),
    }
    if config.train_encoders:
        networks["encoder"] = SlabEncoder(width, channels)
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
    config: HAGANConfig

    def __call__(
        self, networks: Networks, step_and_real: tuple[int, Tensor]
    ) -> Iterator[tuple[str, Tensor]]:
        """Real volumes (B, C, D, H, W) in [-1, 1]; all four see the slab at one random position."""
        step, real = step_and_real
        position = int(torch.randint(self.geometry.positions, ()))
        real_slab = self.geometry.image_slab(real, position)
        real_low = self.geometry.low_resolution(real)
        generator: Any = networks["generator"]
        discriminator = networks["discriminator"]

        with torch.no_grad():
            slab, low = generator.slab_and_low(self._noise(real), position)
        both = self._changed(torch.cat([real_slab, slab]), torch.cat([real_low, low]))
        loss = self._judged(discriminator, *both, position)
        if self.config.r1_weight and step % self.config.r1_every == 0:
            penalty = gradient_penalty(discriminator, *self._changed(real_slab, real_low), position)
            loss = loss + self.config.r1_every * self.config.r1_weight / 2 * penalty
        yield "discriminator", loss

        with frozen(discriminator):
            noise = self._noise(real)
            slab, low = generator.slab_and_low(noise, position)
            logit = discriminator(*self._changed(slab, low), position)
        loss = _bce(logit.float(), real=True)
        if self.config.mode_seeking:
            loss = loss + self.config.mode_seeking * collapse(noise, slab, low)
        yield "generator", loss

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

    def _judged(self, discriminator: nn.Module, slab: Tensor, low: Tensor, position: int) -> Tensor:
        """D's loss for a batch whose first half is real."""
        if self.config.batch_spread:  # of one kind at a time: together they would always vary
            halves = zip(slab.chunk(2), low.chunk(2), strict=True)
            on_real, on_fake = (discriminator(*half, position).float() for half in halves)
        else:
            on_real, on_fake = discriminator(slab, low, position).float().chunk(2)
        return _bce(on_real, real=True) + _bce(on_fake, real=False)

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

    def _changed(self, slab: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        return augment(slab, low, self.config.augment)

    def _noise(self, real: Tensor) -> Tensor:
        return torch.randn(len(real), self.config.latent_dim, device=real.device)


def collapse(noise: Tensor, slab: Tensor, low: Tensor) -> Tensor:
    """How little volumes (B, C, ...) differ for how their noises (B, latent_dim) differ.

    The mode-seeking term of Mao et al., arXiv 1903.05628: the mean L1 distance of two noises over
    that of their slabs and low-resolution volumes, each case beside the next of the batch.
    """

    def apart(x: Tensor) -> Tensor:
        return (x.float() - x.float().roll(1, 0)).abs().flatten(1).mean(1)

    return (apart(noise) / ((apart(slab) + apart(low)) / 2 + SMALLEST_DISTANCE)).mean()


def gradient_penalty(discriminator: nn.Module, slab: Tensor, low: Tensor, position: int) -> Tensor:
    """R1 (Mescheder et al., arXiv 1801.04406): the mean over the cases of the squared gradient of
    their logit with respect to all that the discriminator sees of them."""
    seen = slab.detach().float().requires_grad_(), low.detach().float().requires_grad_()
    with torch.autocast(slab.device.type, enabled=False):  # a gradient's gradient in bf16 is rough
        logits = discriminator(*seen, position)
        gradients = torch.autograd.grad(logits.sum(), seen, create_graph=True)
    return torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).mean()


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

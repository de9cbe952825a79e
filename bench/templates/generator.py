"""The generator my-plugin: a small variational autoencoder of 3D images.

It works as it stands. Replace the networks and the losses by your own, then ask

    bench check my_plugin.py
    bench run --plugin my_plugin.py --generators my-plugin
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import (
    Batches,
    Generator,
    GeneratorConfig,
    Run,
    Sample,
    TrainingConfig,
    VolumeSet,
    register_generator,
    train,
)
from bench.sizes import require_divisible

SHRINK = 16  # four halvings of every side


# Every value that you may want to change, with a default and a description. `bench list` shows
# them, `--set generators.my-plugin.latent_dim=64` changes one, and they are part of what a result
# is found again by.
class MyPluginConfig(GeneratorConfig):
    """Size and training of the autoencoder."""

    latent_dim: int = Field(32, gt=0, description="numbers that a volume is encoded to")
    width: int = Field(16, gt=0, description="channels after the first halving; at most 4 x later")
    kl_weight: float = Field(1e-4, ge=0, description="of the latents' divergence from the normal")
    training: TrainingConfig = Field(
        TrainingConfig(steps=400, batch_size=4, learning_rate=1e-3, clip_norm=1.0, ema_decay=0.95),
        description="steps, batch size, learning rate and more",
    )


class Encoder(nn.Sequential):
    """(B, 1, D, H, W) -> mean and log variance (B, 2 latent_dim)."""

    def __init__(self, grid: Sequence[int], config: MyPluginConfig) -> None:
        widths = _widths(config.width)
        layers: list[nn.Module] = []
        for before, after in zip((1, *widths), widths, strict=False):
            layers += [nn.Conv3d(before, after, 3, stride=2, padding=1), nn.SiLU()]
        voxels = _voxels(grid) * widths[-1]
        super().__init__(*layers, nn.Flatten(), nn.Linear(voxels, 2 * config.latent_dim))


class Decoder(nn.Sequential):
    """Latents (B, latent_dim) -> what images (B, 1, D, H, W) have beside their mean."""

    def __init__(self, grid: Sequence[int], config: MyPluginConfig) -> None:
        widths = _widths(config.width)[::-1]
        small = [side // SHRINK for side in grid]
        layers: list[nn.Module] = [
            nn.Linear(config.latent_dim, _voxels(grid) * widths[0]),
            nn.Unflatten(1, (widths[0], *small)),
        ]
        for before, after in zip(widths, (*widths[1:], widths[-1]), strict=True):
            layers += [
                nn.SiLU(),
                nn.Upsample(scale_factor=2),
                nn.Conv3d(before, after, 3, padding=1),
            ]
        super().__init__(*layers, nn.SiLU(), nn.Conv3d(widths[-1], 1, 3, padding=1))


def _widths(width: int) -> tuple[int, ...]:
    return width, 2 * width, 4 * width, 4 * width


def _voxels(grid: Sequence[int]) -> int:
    d, h, w = (side // SHRINK for side in grid)
    return d * h * w


# An instance holds its configuration and nothing that was learnt: fit and sample may run in
# different processes, days apart.
@register_generator("my-plugin")
class MyPlugin(Generator):
    """A small variational autoencoder."""  # the line that `bench list` shows

    Config = MyPluginConfig
    config: MyPluginConfig
    version = "1"  # raise it in an installed package when the model changes
    # "none": images alone, which the harness labels. "joint" or "native": sample yields labels too.
    labels = "none"

    def check(self, grid: tuple[int, int, int], label_names: Mapping[int, str]) -> None:
        """Refuse before any training what the networks cannot take."""
        require_divisible(grid, SHRINK, SHRINK, "my-plugin")

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, Any]:
        """Learn from `train_set` alone; return what sample needs: tensors, numbers, text."""
        config = self.config
        networks = {"encoder": Encoder(run.grid, config), "decoder": Decoder(run.grid, config)}
        # The mean image needs no network: what is left is what cases differ in.
        centre = torch.zeros(1, 1, *run.grid)
        for i in range(len(train_set)):  # one at a time: a set may be larger than the memory
            centre += torch.from_numpy(train_set.image(i)) / len(train_set)
        centre = centre.to(run.device)
        # Which cases step t sees follows from the seed and t alone, so that a fit that was stopped
        # goes on as if nothing had been.
        batches = Batches(len(train_set), config.training.batch_size, run.seed)

        def images(rows: list[int]) -> Tensor:
            return torch.from_numpy(train_set.images(rows)).unsqueeze(1).to(run.device)

        def losses(nets: Mapping[str, nn.Module], x: Tensor) -> Iterator[tuple[str, Tensor]]:
            mean, log_variance = nets["encoder"](x - centre).float().chunk(2, dim=1)
            # The random state was set from the seed and the step: draw freely.
            z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
            error = (centre + nets["decoder"](z).float() - x).square().mean()
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
            yield "all", error + config.kl_weight * kl  # "all": the optimiser of all networks

        def validate(nets: Mapping[str, nn.Module]) -> dict[str, float]:
            errors = []
            for i in range(len(val)):
                x = torch.from_numpy(val.image(i))[None, None].to(run.device)
                mean, _ = nets["encoder"](x - centre).chunk(2, dim=1)
                errors.append(float((centre + nets["decoder"](mean) - x).square().mean()))
            return {"error": sum(errors) / max(1, len(errors))}

        states = train(
            run,
            networks,
            losses,
            lambda step: images(batches(step)),
            config.training,
            average=["encoder", "decoder"],
            validate=validate,
            select="-error",  # what `keep: best` goes by; lower is better
        )
        # Latents of the cases do not fill the normal distribution exactly: keep how they lie.
        encoder = networks["encoder"]
        encoder.load_state_dict(states["encoder"])
        with torch.no_grad():
            codes = [
                encoder.eval()(images([i]) - centre)[:, : config.latent_dim]
                for i in range(len(train_set))
            ]
        known = torch.cat(codes).float()
        return {
            "decoder": states["decoder"],
            "centre": centre,
            "mean": known.mean(0),
            "deviation": known.std(0) if len(known) > 1 else torch.ones_like(known[0]),
        }

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        """Yield one volume for each index: (D, H, W) in [0, 1]."""
        state = run.state()  # what fit returned, read from the disk
        decoder = Decoder(run.grid, self.config).to(run.device).eval()
        decoder.load_state_dict(state["decoder"])
        for i in indices:
            noise = run.noise(i, (1, self.config.latent_dim))  # depends on the seed and i alone
            with torch.no_grad(), run.autocast():
                residual = decoder(state["mean"] + state["deviation"] * noise).float()
            image = state["centre"] + residual
            yield Sample(image[0, 0].clamp(0, 1).cpu().numpy())

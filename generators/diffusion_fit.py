"""Training of a denoising network, in pixels or in latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.generator import Frozen
from bench.training import TrainingConfig, train
from generators.diffusion import Predict, Process, ProcessConfig, TimestepConfig
from generators.unet import UNetConfig

if TYPE_CHECKING:
    from bench.run import Run

VALIDATION_CASES = 16
"""Validation inside a fit looks at this many cases at most; it watches, it does not judge."""


class DiffusionTraining(TrainingConfig):
    """Training of a denoising network."""

    ema_decay: float = Field(
        0.995, ge=0, lt=1, description="decay of the averaged weights that are kept; 0 is off"
    )


class DiffusionConfig(Frozen):
    """A denoising network, its process and its training."""

    unet: UNetConfig = Field(UNetConfig(), description="network")
    process: ProcessConfig = Field(ProcessConfig(), description="noise and prediction")
    draw: TimestepConfig = Field(TimestepConfig(), description="timesteps seen in training")
    loss: Literal["l1", "l2"] = Field("l2", description="distance of output and target")
    training: DiffusionTraining = Field(DiffusionTraining(), description="optimisation")


def diffusion_loss(
    process: Process,
    predict: Predict,
    x0: Tensor,
    draw: TimestepConfig,
    loss: Literal["l1", "l2"] = "l2",
) -> Tensor:
    """Mean distance of prediction and target at random timesteps, in float32."""
    noise = torch.randn_like(x0)
    t = draw.draw(len(x0), process.timesteps, x0.device)
    output = predict(process.noisy(x0, noise, t), t).float()
    target = process.target(x0, noise, t)
    return F.l1_loss(output, target) if loss == "l1" else F.mse_loss(output, target)


def fit_diffusion(
    config: DiffusionConfig,
    unet: nn.Module,
    process: Process,
    batch: Callable[[int], Tensor],
    held_out: Tensor,
    run: Run,
) -> dict[str, Tensor]:
    """Train `unet` on the volumes (B, C, D, H, W) of `batch(step)`; its averaged state dict.

    `held_out` (B, C, D, H, W) are validation volumes, on which the loss is recorded.
    """

    def validate(networks: Mapping[str, nn.Module]) -> dict[str, float]:
        torch.manual_seed(run.seed)  # the same noise and timesteps each time
        with run.autocast():
            rows = [
                diffusion_loss(process, networks["unet"], x, config.draw, config.loss)
                for x in torch.split(held_out, config.training.batch_size)
            ]
        return {"loss": float(torch.stack(rows).mean())}

    kept = train(
        run,
        {"unet": unet},
        lambda networks, x0: iter(
            [("all", diffusion_loss(process, networks["unet"], x0, config.draw, config.loss))]
        ),
        batch,
        config.training,
        average=["unet"],
        validate=validate if len(held_out) else None,
    )
    return kept["unet"]

"""Training of a denoising network, in pixels or in latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from bench.generator import Frozen
from bench.training import Preview, TrainingConfig, train
from generators.diffusion import Predict, Process, ProcessConfig, TimestepConfig
from generators.sampler import SamplingConfig, chunks, denoise
from generators.unet import UNetConfig

if TYPE_CHECKING:
    from bench.run import Run

Decode = Callable[[Tensor], NDArray[np.float32]]  # (B, C, d, h, w) -> (B, D, H, W) in [0, 1]

PREVIEW_VOLUMES, PREVIEW_STEPS = 4, 10
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
    weight: Tensor | None = None,
) -> Tensor:
    """Mean distance of prediction and target at random timesteps, in float32.

    The process's weights are of squares; a distance takes their root. `weight`, (B, 1, D, H, W),
    says how much each voxel counts beside that.
    """
    noise = torch.randn_like(x0)
    t = draw.draw(len(x0), process.timesteps, x0.device)
    error = predict(process.noisy(x0, noise, t), t).float() - process.target(x0, noise, t)
    weights = process.weight(t)
    distance = weights.sqrt() * error.abs() if loss == "l1" else weights * error**2
    return (distance if weight is None else weight * distance).mean()


def fit_diffusion(
    config: DiffusionConfig,
    unet: nn.Module,
    process: Process,
    batch: Callable[[int], Tensor],
    held_out: Tensor,
    run: Run,
    preview: Preview | None = None,
) -> dict[str, Tensor]:
    """Train `unet` on the volumes (B, C, D, H, W) of `batch(step)`; its averaged state dict.

    `held_out` (B, C, D, H, W) are validation volumes, on which the loss is recorded; the least loss
    is the best. `preview` is what `drawn` gives.
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
        select="-loss",
        preview=preview,
    )
    return kept["unet"]


def drawn(
    process: Process, shape: tuple[int, ...], decode: Decode, run: Run, batch_size: int
) -> Preview:
    """A preview of training: the volumes 0 to 3 of a few steps, always from the same noise.

    They are drawn in the training's batches and decoded one by one, so that looking on needs less
    memory than training on one device.
    """
    sampling = preview_sampling(process)

    def preview(networks: Mapping[str, nn.Module]) -> NDArray[np.float32]:
        volumes = [
            denoise(process, networks["unet"], rows, shape, sampling, run)
            for rows in chunks(range(PREVIEW_VOLUMES), batch_size)
        ]
        return np.concatenate([decode(x) for x in torch.split(torch.cat(volumes), 1)])

    return preview


def preview_sampling(process: Process) -> SamplingConfig:
    """Few steps, of second order."""
    return SamplingConfig(steps=min(PREVIEW_STEPS, process.timesteps), solver="dpm++2m")

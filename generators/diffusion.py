"""Diffusion processes: what noise is added, and what a network predicts of the mixture.

Two processes with one interface: Gaussian diffusion (Ho et al., arXiv 2006.11239) and rectified
flow (Liu et al., arXiv 2209.03003).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, Self

import torch
from monai.networks.schedulers import DDPMScheduler, RFlowScheduler
from pydantic import Field, model_validator
from torch import Tensor

from bench.generator import Frozen

MIN_SNR = 5.0
"""gamma of min-SNR weighting (Hang et al., arXiv 2303.09556)."""
SMALLEST_SHARE = 0.05
"""A velocity read off a clean volume divides by the share of noise, taken to be at least this."""

Predict = Callable[[Tensor, Tensor], Tensor]  # (noisy volumes, timesteps (B,)) -> network output
Spacing = Callable[[float], float]  # of timesteps: share of the way left to go -> t / T


class TimestepConfig(Frozen):
    """Which timesteps training sees."""

    distribution: Literal["uniform", "logit-normal"] = Field(
        "uniform", description="of t / T, where 1 is pure noise"
    )
    loc: float = Field(0.0, description="logit-normal's location; above 0 is more noise")
    scale: float = Field(1.0, gt=0, description="logit-normal's scale")

    def draw(self, n: int, timesteps: int, device: torch.device) -> Tensor:
        """`n` integer timesteps in [0, timesteps) from torch's global random state."""
        if self.distribution == "uniform":
            return torch.randint(timesteps, (n,), device=device)
        share = torch.sigmoid(self.loc + self.scale * torch.randn(n, device=device))
        return (share * timesteps).long().clamp(max=timesteps - 1)


class ProcessConfig(Frozen):
    """The noise process and what the network predicts of it."""

    prediction: Literal["epsilon", "v_prediction", "sample", "flow", "flow-sample"] = Field(
        "epsilon",
        description="noise, velocity or clean volume of Gaussian diffusion, or velocity or clean "
        "volume of rectified flow (the clean one judged by its velocity, for large patches); all "
        "but noise reach usable volumes in far fewer training steps",
    )
    schedule: Literal["scaled_linear_beta", "linear_beta", "cosine"] = Field(
        "scaled_linear_beta", description="noise schedule of Gaussian diffusion; not used by flow"
    )
    beta_start: float = Field(0.0015, gt=0, description="first beta of the linear schedules")
    beta_end: float = Field(0.0195, gt=0, lt=1, description="last beta of the linear schedules")
    timesteps: int = Field(1000, gt=1, description="timesteps T of training")
    loss_weight: Literal["none", "min-snr"] = Field(
        "none",
        description="min-snr: Gaussian timesteps count by min(SNR, 5) of the clean volume's error",
    )

    @model_validator(mode="after")
    def _weight_is_of_gaussian_diffusion(self) -> Self:
        if self.loss_weight == "min-snr" and self.prediction in ("flow", "flow-sample"):
            raise ValueError(
                f"loss_weight min-snr is of Gaussian diffusion, prediction is {self.prediction!r}; "
                "choose none."
            )
        return self


class Process(Protocol):
    """x_t = signal x0 + noise n: a mixture of volumes x0 and noise n, (B, C, D, H, W), for each
    timestep t."""

    timesteps: int

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The mixtures at integer timesteps t (B,)."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network shall say of the noisy volumes."""

    def weight(self, t: Tensor) -> Tensor:
        """Factors (B, 1, 1, 1, 1) of the squared distance of output and target."""

    def clean(self, output: Tensor, x: Tensor, t: int) -> Tensor:
        """The volumes x0 that the network's output says of the mixtures x at timestep t."""

    def shares(self, t: int) -> tuple[float, float]:
        """(signal, noise) of the mixture at timestep t."""

    def times(self, steps: int, spacing: Spacing) -> list[int]:
        """`steps` timesteps at which to ask the network, from pure noise down, and that of x0."""


class GaussianDiffusion:
    """x_t = sqrt(ā_t) x0 + sqrt(1 − ā_t) noise, with MONAI's schedules.

    Args:
        clip: bounds of x0 during sampling where the data have some (pixels in [-1, 1]); latents
            have none, and clipping them to [-1, 1] takes a third of their spread away.
    """

    def __init__(self, config: ProcessConfig, clip: tuple[float, float] | None = None) -> None:
        betas = {} if config.schedule == "cosine" else _betas(config)
        self.scheduler = DDPMScheduler(
            num_train_timesteps=config.timesteps,
            schedule=config.schedule,
            prediction_type=config.prediction,
            clip_sample=False,
            **betas,
        )
        self.prediction = config.prediction
        self.min_snr = config.loss_weight == "min-snr"
        self.timesteps = config.timesteps
        self.clip = clip
        self.signal = self.scheduler.alphas_cumprod.double().tolist()  # ā_t

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        mixed: Tensor = self.scheduler.add_noise(x0, noise, t)
        return mixed

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return x0
        velocity: Tensor = self.scheduler.get_velocity(x0, noise, t)
        return velocity

    def weight(self, t: Tensor) -> Tensor:
        if not self.min_snr:
            return torch.ones(len(t), 1, 1, 1, 1, device=t.device)
        signal = self.scheduler.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1, 1)
        snr = signal / (1 - signal)
        # The error of x0, of which min(SNR, gamma) is the weight, in terms of the output's.
        of_x0 = {"sample": torch.ones_like(snr), "epsilon": 1 / snr, "v_prediction": 1 / (snr + 1)}
        weight: Tensor = snr.clamp(max=MIN_SNR) * of_x0[self.prediction]
        return weight

    def clean(self, output: Tensor, x: Tensor, t: int) -> Tensor:
        signal, noise = self.shares(t)
        if self.prediction == "epsilon":
            x0 = (x - noise * output) / signal
        elif self.prediction == "sample":
            x0 = output
        else:
            x0 = signal * x - noise * output
        return x0 if self.clip is None else x0.clamp(*self.clip)

    def shares(self, t: int) -> tuple[float, float]:
        signal = self.signal[t] if t >= 0 else 1.0
        return signal**0.5, (1 - signal) ** 0.5

    def times(self, steps: int, spacing: Spacing) -> list[int]:
        # The last question is at t = 0: a longer last move would take spread from narrow data.
        last = self.timesteps - 1
        spaced = [round(last * spacing(1 - i / max(1, steps - 1))) for i in range(steps)]
        return [*falling(spaced, 0), -1]


class RectifiedFlow:
    """x_t = (1 − s) x0 + s noise with s = t/T, as in MONAI's RFlowScheduler.

    The network predicts the velocity x0 − noise, or ("flow-sample") x0 itself, judged by the
    velocity (x0 − x_t) / s that follows from it (Li and He, arXiv 2511.13720): a network whose
    channels hold whole patches of voxels need not carry noise of so many dimensions through.

    Args:
        clip: bounds of x0 during sampling where the data have some, as in GaussianDiffusion.
    """

    def __init__(self, config: ProcessConfig, clip: tuple[float, float] | None = None) -> None:
        self.scheduler = RFlowScheduler(num_train_timesteps=config.timesteps)
        self.of_x0 = config.prediction == "flow-sample"
        self.timesteps = config.timesteps
        self.clip = clip

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        mixed: Tensor = self.scheduler.add_noise(x0, noise, t)
        return mixed

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return x0 if self.of_x0 else x0 - noise

    def weight(self, t: Tensor) -> Tensor:
        share = (t.float() / self.timesteps).clamp(min=SMALLEST_SHARE).view(-1, 1, 1, 1, 1)
        return share**-2 if self.of_x0 else torch.ones_like(share)

    def clean(self, output: Tensor, x: Tensor, t: int) -> Tensor:
        x0 = output if self.of_x0 else x + t / self.timesteps * output
        return x0 if self.clip is None else x0.clamp(*self.clip)

    def shares(self, t: int) -> tuple[float, float]:
        return 1 - t / self.timesteps, t / self.timesteps

    def times(self, steps: int, spacing: Spacing) -> list[int]:
        spaced = [round(self.timesteps * spacing(1 - i / steps)) for i in range(steps)]
        return [*falling(spaced, 1), 0]


def falling(times: list[int], lowest: int) -> list[int]:
    """The timesteps as they are, or, where two would be equal, the nearest that fall; all at least
    `lowest`."""
    distinct: list[int] = []
    for left, t in enumerate(times, start=1 - len(times)):
        highest = distinct[-1] - 1 if distinct else t
        distinct.append(max(min(t, highest), lowest - left))
    return distinct


def _betas(config: ProcessConfig) -> dict[str, Any]:
    return {"beta_start": config.beta_start, "beta_end": config.beta_end}


def make_process(config: ProcessConfig, clip: tuple[float, float] | None = None) -> Process:
    """The process that `config` names; `clip` bounds x0 in sampling."""
    if config.prediction in ("flow", "flow-sample"):
        return RectifiedFlow(config, clip)
    return GaussianDiffusion(config, clip)

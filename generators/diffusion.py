"""Diffusion processes: what noise is added, what a network predicts, and how a volume is drawn.

Two processes with one interface: Gaussian diffusion (Ho et al., arXiv 2006.11239) with DDIM's
sampler (Song et al., arXiv 2010.02502), and rectified flow (Liu et al., arXiv 2209.03003).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import torch
from monai.networks.schedulers import DDPMScheduler, RFlowScheduler
from pydantic import Field, model_validator
from torch import Tensor

from bench.errors import InputError
from bench.generator import Frozen

if TYPE_CHECKING:
    from bench.run import Run

MIN_SNR = 5.0
"""gamma of min-SNR weighting (Hang et al., arXiv 2303.09556)."""
SMALLEST_SHARE = 0.05
"""A velocity read off a clean volume divides by the share of noise, taken to be at least this."""

Predict = Callable[[Tensor, Tensor], Tensor]  # (noisy volumes, timesteps (B,)) -> network output


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


class SamplingConfig(Frozen):
    """How volumes are drawn; part of no fit, so changing it trains nothing again."""

    steps: int = Field(250, gt=0, description="network evaluations for one volume")
    eta: float = Field(
        0.0, ge=0, le=1, description="noise in Gaussian steps: 0 is DDIM, 1 with all steps DDPM"
    )
    batch_size: int = Field(1, gt=0, description="volumes drawn together; changes no volume")


class Process(Protocol):
    """Noise added to x0 (B, C, D, H, W) at integer timesteps t (B,), and steps back."""

    timesteps: int

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network shall say of the noisy volumes."""

    def weight(self, t: Tensor) -> Tensor:
        """Factors (B, 1, 1, 1, 1) of the squared distance of output and target."""

    def trajectory(self, steps: int) -> list[tuple[int, int]]:
        """The (from, to) timesteps of sampling, from pure noise down."""

    def step(
        self, output: Tensor, x: Tensor, move: tuple[int, int], eta: float, noise: Tensor | None
    ) -> Tensor:
        """The volumes at timestep move[1] from those at move[0] and the network's output."""


class GaussianDiffusion:
    """x_t = sqrt(ā_t) x0 + sqrt(1 − ā_t) noise, with MONAI's schedules.

    The step is written out because MONAI's schedulers draw one noise for the whole batch, where a
    volume's noise must be its own, and because their DDIM only moves by T // steps.

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

    def trajectory(self, steps: int) -> list[tuple[int, int]]:
        # The last move starts at t = 0: a longer one would take spread from narrow data.
        last = self.timesteps - 1
        times = [*(round(last * (1 - i / max(1, steps - 1))) for i in range(steps)), -1]
        return list(pairwise(times))

    def step(
        self, output: Tensor, x: Tensor, move: tuple[int, int], eta: float, noise: Tensor | None
    ) -> Tensor:
        """Formulas (12) and (16) of the DDIM paper, between any two timesteps."""
        now, after = self.signal[move[0]], self.signal[move[1]] if move[1] >= 0 else 1.0
        if self.prediction == "epsilon":
            x0 = (x - (1 - now) ** 0.5 * output) / now**0.5
        elif self.prediction == "sample":
            x0 = output
        else:
            x0 = now**0.5 * x - (1 - now) ** 0.5 * output
        if self.clip is not None:
            x0 = x0.clamp(*self.clip)
        epsilon = (x - now**0.5 * x0) / (1 - now) ** 0.5
        variance = eta**2 * (1 - after) / (1 - now) * (1 - now / after)
        moved: Tensor = after**0.5 * x0 + max(0.0, 1 - after - variance) ** 0.5 * epsilon
        return moved if noise is None else moved + variance**0.5 * noise


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

    def trajectory(self, steps: int) -> list[tuple[int, int]]:
        self.scheduler.set_timesteps(steps)
        times = [*self.scheduler.timesteps.tolist(), 0]
        return list(pairwise(times))

    def step(
        self, output: Tensor, x: Tensor, move: tuple[int, int], eta: float, noise: Tensor | None
    ) -> Tensor:
        """Euler's step along the line through x and x0."""
        x0 = output if self.of_x0 else x + move[0] / self.timesteps * output
        if self.clip is not None:
            x0 = x0.clamp(*self.clip)
        return x0 + move[1] / move[0] * (x - x0)


def _betas(config: ProcessConfig) -> dict[str, Any]:
    return {"beta_start": config.beta_start, "beta_end": config.beta_end}


def make_process(config: ProcessConfig, clip: tuple[float, float] | None = None) -> Process:
    """The process that `config` names; `clip` bounds x0 in sampling."""
    if config.prediction in ("flow", "flow-sample"):
        return RectifiedFlow(config, clip)
    return GaussianDiffusion(config, clip)


def check_sampling(sampling: SamplingConfig, process: ProcessConfig) -> None:
    """InputError if a volume would take more steps than the process has."""
    if sampling.steps > process.timesteps:
        raise InputError(
            f"sampling.steps is {sampling.steps}, more than the {process.timesteps} timesteps of "
            "training; lower it."
        )


def denoise(
    process: Process,
    predict: Predict,
    indices: Sequence[int],
    shape: tuple[int, ...],
    sampling: SamplingConfig,
    run: Run,
    stream: int = 0,
    attempt: int = 0,
) -> Tensor:
    """Draw the volumes `indices`, of `shape` (C, D, H, W), together: (B, C, D, H, W) float32.

    All noise comes from `run.noise`, volume by volume, so a volume is the same in any batch.
    Models that draw two things of one volume (label, image) tell them apart by `stream`, 0 or 1;
    one that draws a volume again, because it rejected the last draw, counts on by `attempt`.
    """
    first = attempt * (process.timesteps + 1)  # no draw takes more noises than that

    def noise(draw: int) -> Tensor:
        number = 2 * (first + draw) + stream
        return torch.stack([run.noise(i, shape, stream=number) for i in indices])

    x = noise(0)
    with torch.no_grad():
        for k, move in enumerate(process.trajectory(sampling.steps), start=1):
            with run.autocast():
                output = predict(x, torch.full((len(x),), move[0], device=x.device))
            fresh = noise(k) if sampling.eta > 0 else None
            x = process.step(output.float(), x, move, sampling.eta, fresh)
    return x


def chunks(indices: Sequence[int], size: int) -> list[list[int]]:
    """Consecutive groups of at most `size` indices."""
    return [list(indices[i : i + size]) for i in range(0, len(indices), size)]

"""How volumes are drawn from a diffusion process and a trained network.

One step for both processes: DDIM (Song et al., arXiv 2010.02502), which on a rectified flow is
Euler's, or DPM-Solver++(2M) (Lu et al., arXiv 2211.01095). Written out because MONAI's schedulers
draw one noise for the whole batch, where a volume's noise must be its own, because their DDIM only
moves by T // steps, and because they have no second-order solver.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.errors import InputError
from bench.generator import Frozen
from generators.diffusion import Predict, Process, ProcessConfig, Spacing

if TYPE_CHECKING:
    from bench.run import Run

Shares = tuple[float, float]  # of x0 and of noise in a mixture


def _uniform(left: float) -> float:
    return left


def _cosine(left: float) -> float:
    return math.sin(math.pi / 2 * left) ** 2


SPACINGS: dict[str, Spacing] = {"uniform": _uniform, "cosine": _cosine}


class SamplingConfig(Frozen):
    """How volumes are drawn; part of no fit, so changing it trains nothing again."""

    steps: int = Field(250, gt=0, description="network evaluations for one volume")
    solver: Literal["ddim", "dpm++2m"] = Field(
        "ddim",
        description="ddim, which on a flow is Euler's method, or DPM-Solver++(2M), of second order "
        "at the same cost: keeps more of the data's spread in few steps",
    )
    spacing: Literal["uniform", "cosine"] = Field(
        "uniform",
        description="of the timesteps; cosine: denser at both ends, where layout and grain are "
        "decided",
    )
    eta: float = Field(
        0.0, ge=0, le=1, description="fresh noise in each step: 0 is DDIM, 1 with all steps DDPM"
    )
    batch_size: int = Field(1, gt=0, description="volumes drawn together; changes no volume")

    @model_validator(mode="after")
    def _second_order_adds_no_noise(self) -> Self:
        if self.solver == "dpm++2m" and self.eta:
            raise ValueError(
                f"solver dpm++2m adds no noise, eta is {self.eta}; set eta to 0 or choose ddim."
            )
        return self


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

    second_order = sampling.solver == "dpm++2m"
    x = noise(0)
    seen: list[tuple[float, Tensor]] = []  # (log SNR, x0) of the last two questions
    times = process.times(sampling.steps, SPACINGS[sampling.spacing])
    with torch.no_grad():
        for k, (t, to) in enumerate(pairwise(times), start=1):
            with run.autocast():
                output = predict(x, torch.full((len(x),), t, device=x.device))
            now, after = process.shares(t), process.shares(to)
            x0 = process.clean(output.float(), x, t)
            seen = [*seen[-1:], (log_snr(now), x0)]
            if second_order:
                x0 = extrapolated(seen, log_snr(after))
            fresh = noise(k) if sampling.eta > 0 else None
            x = step(x0, x, now, after, sampling.eta, fresh)
    return x


def step(
    x0: Tensor,
    x: Tensor,
    now: Shares,
    after: Shares,
    eta: float = 0.0,
    fresh: Tensor | None = None,
) -> Tensor:
    """From the mixture x, with shares `now`, to the mixture of the same x0 with shares `after`.

    Formulas (12) and (16) of the DDIM paper, for any two shares.
    """
    (signal, noise), (signal_after, noise_after) = now, after
    epsilon = (x - signal * x0) / noise
    added = noise**2 - (signal * noise_after / signal_after) ** 2  # variance between the two
    variance = eta**2 * (noise_after / noise) ** 2 * max(0.0, added)
    moved: Tensor = signal_after * x0 + max(0.0, noise_after**2 - variance) ** 0.5 * epsilon
    return moved if fresh is None else moved + variance**0.5 * fresh


def extrapolated(seen: Sequence[tuple[float, Tensor]], after: float) -> Tensor:
    """x0 half-way to the log SNR `after`, along the line through the last two that were seen.

    With it a DDIM step is one of DPM-Solver++(2M). The last step, to no noise at all, and the first
    after nothing but noise are of first order.
    """
    *before, (now, x0) = seen
    if not before or math.isinf(after) or math.isinf(before[0][0]):
        return x0
    (past, x0_past), *_ = before
    return x0 + (after - now) / (now - past) / 2 * (x0 - x0_past)


def log_snr(shares: Shares) -> float:
    """log(signal / noise), infinite where there is only one of them."""
    signal, noise = shares
    if not signal or not noise:
        return math.inf if signal else -math.inf
    return math.log(signal / noise)


def chunks(indices: Sequence[int], size: int) -> list[list[int]]:
    """Consecutive groups of at most `size` indices."""
    return [list(indices[i : i + size]) for i in range(0, len(indices), size)]

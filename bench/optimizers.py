"""Optimisers: how they are made, what they are given in a step, how their memory lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.training_config import TrainingConfig


def adamw(parameters: Sequence[nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW as the configuration says, fused where torch has it for the device."""
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainingConfig, step: int) -> None:
    """Linear warm-up, then constant or half a cosine down to 1 % of the peak."""
    factor = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        length = max(1, config.steps - config.warmup_steps)
        done = min(1.0, max(0, step - config.warmup_steps) / length)
        factor *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def clip(optimizer: torch.optim.Optimizer, limit: float) -> float:
    """Clip the gradients of the optimiser's weights to the norm `limit`, if any; their norm."""
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    if limit:
        return float(nn.utils.clip_grad_norm_(owned, limit))
    return float(nn.utils.get_total_norm([p.grad for p in owned if p.grad is not None]))


def lay_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Lay momenta as their weights lie: a fused step takes both for equal, whatever was loaded."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

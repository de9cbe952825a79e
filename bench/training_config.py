"""Configuration of one fit; apart from the loop so that reading it imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.generator import Frozen


class TrainingConfig(Frozen):
    """Length, optimiser, averaging and watching of one fit."""

    steps: int = Field(100_000, gt=0, description="optimiser steps")
    batch_size: int = Field(2, gt=0, description="volumes per step")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's momenta")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="learning rate after warm-up"
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    clip_norm: float = Field(0.0, ge=0, description="gradient norm is clipped to this; 0 is off")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="decay of the averaged weights that are kept; 0 is off"
    )
    validate_every: int = Field(
        0, ge=0, description="steps between validations; 0 is only at the end"
    )
    keep: Literal["last", "best"] = Field(
        "last", description="networks that are kept: the last, or the best at a validation"
    )
    patience: int = Field(
        0,
        ge=0,
        description="validations without a better score after which the fit ends; 0 is off",
    )
    explode_factor: float = Field(
        1000.0,
        ge=0,
        description="a fit fails whose loss, median of 20 steps, is so many times that of its "
        "first 20 steps; 0 is off",
    )

"""A generator whose cost has a closed form, to be loaded as a plug-in's file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench import Generator, GeneratorConfig, Sample, Stage, register_generator
from bench.generator import Frozen, State
from bench.training import TrainingConfig, train

if TYPE_CHECKING:
    from bench import Run, VolumeSet

WIDTH, POOL = 4, 8


class Sampling(Frozen):
    """How volumes are drawn."""

    steps: int = Field(50, gt=0, description="pauses for one volume")
    batch_size: int = Field(2, gt=0, description="volumes drawn together")


class Config(GeneratorConfig):
    """Configuration of the toy."""

    training: TrainingConfig = Field(
        TrainingConfig(steps=7200, batch_size=2), description="of both stages"
    )
    start: int = Field(1000, ge=0, description="step from which the toy trains at all")
    held_mb: float = Field(0.0, ge=0, description="memory that a volume of 32x32x32 holds")
    pause: float = Field(0.0, ge=0, description="seconds of a denoising step of one volume")
    wait: float = Field(0.0, ge=0, description="seconds before a fit begins")
    broken: bool = Field(False, description="whether the fit raises")
    sampling: Sampling = Field(Sampling(), description="how volumes are drawn")


class Attention(nn.Module):
    """One convolution, and attention over its pooled output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        tokens = F.avg_pool3d(y, POOL).flatten(2).transpose(1, 2)  # (B, n, WIDTH)
        return torch.bmm(torch.bmm(tokens, tokens.transpose(1, 2)).softmax(-1), tokens)


@register_generator("estimated")
class Estimated(Generator):
    """A toy with a convolution and attention."""

    Config = Config
    config: Config

    def stages(self) -> Sequence[Stage]:
        c = self.config
        return (
            Stage("below", c, partial(self._fit, 1)),
            Stage("above", c, partial(self._fit, 2), needs=("below",)),
        )

    def _fit(self, networks: int, train_set: VolumeSet, val: VolumeSet, run: Run) -> State:
        c = self.config
        time.sleep(c.wait)
        if c.broken:
            raise ValueError("the toy is broken")
        assert c.start == 0
        labels = [set(np.unique(train_set.label(i))) for i in range(len(train_set))]
        assert all(found == set(run.label_names) for found in labels)
        if networks == 2:
            assert run.state("below")["net0"]["conv.weight"].shape == (WIDTH, 1, 3, 3, 3)
        batch = c.training.batch_size
        size = batch * c.held_mb * 2**20 * np.prod(run.grid) / 32**3
        held = np.ones(int(size), dtype=np.uint8)
        nets = {f"net{i}": Attention() for i in range(networks)}
        kept = train(
            run,
            nets,
            lambda shown, x: iter([("all", sum(n(x).square().mean() for n in shown.values()))]),
            lambda step: torch.from_numpy(train_set.images(range(batch))).unsqueeze(1),
            c.training,
        )
        return {**kept, "held": len(held)}

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        run.state("above")
        for _ in indices:
            time.sleep(self.config.pause * (self.config.sampling.steps + 2))  # 2 to decode
            yield Sample(np.zeros(run.grid, np.float32))

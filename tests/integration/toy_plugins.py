"""Plug-ins whose faults are configured: what the harness must survive."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from bench import (
    Batches,
    Generator,
    GeneratorConfig,
    Run,
    Sample,
    SegmenterConfig,
    TrainingConfig,
    VolumeSet,
    register_generator,
    register_segmenter,
    train,
)

Fault = Literal[
    *("", "raise", "memory", "exit", "nan", "shape", "few", "endless", "label", "state"),
    *("hang", "hoard", "vanish", "crash", "outside"),
]


class ToyConfig(GeneratorConfig):
    """A fault, if any."""

    fault: Fault = Field("", description="what goes wrong")
    gate: str = Field("", description="file that must exist for the fit to succeed")


def misbehave(fault: str) -> None:
    if fault == "raise":
        raise RuntimeError("the toy broke\nand this line is no part of the reason")
    if fault == "memory":
        raise MemoryError("37 GiB")
    if fault == "exit":
        sys.exit(3)
    if fault == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(10**6)
    if fault == "hoard":
        kept = []
        while True:
            kept.append(np.ones(4 * 2**20))  # 32 MiB that are written to
            time.sleep(0.01)
    if fault == "vanish":
        os._exit(0)
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)


class Toy(Generator):
    """The mean training image under noise."""

    Config = ToyConfig

    def fit(self, train: VolumeSet, val: VolumeSet, run: Run) -> dict[str, object]:
        misbehave(self.config.fault)
        if self.config.gate and not Path(self.config.gate).exists():
            raise RuntimeError("the gate is shut")
        if self.config.fault == "state":
            return {"function": misbehave}
        mean = torch.from_numpy(train.images().mean(axis=0))
        if self.config.fault == "outside":
            for path in run.folder.parents[1].glob("*/artefacts/train/images.npy"):
                path.chmod(0o600)
                path.write_bytes(b"mine now")
        return {"mean": mean}

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        mean = run.state()["mean"]
        if self.config.fault == "few":
            indices = indices[:-1]
        for i in [*indices, *(range(10**6) if self.config.fault == "endless" else ())]:
            image = (mean + 0.05 * run.noise(i, run.grid)).clamp(0, 1).numpy()
            if self.config.fault == "nan":
                image[0, 0, 0] = np.nan
            if self.config.fault == "shape":
                image = image[1:]
            yield Sample(image, self.label(image))

    def label(self, image: np.ndarray) -> np.ndarray | None:
        return None


@register_generator("toy-plain")
class Plain(Toy):
    """Images alone: the harness labels them."""


@register_generator("toy-joint")
class Joint(Toy):
    """Images with labels: bright voxels are liver."""

    labels = "joint"

    def label(self, image: np.ndarray) -> np.ndarray | None:
        return None if self.config.fault == "label" else (image > 0.5).astype(np.uint8)


class SlowConfig(GeneratorConfig):
    """A fit that takes a while and may be killed in its middle, once."""

    training: TrainingConfig = Field(TrainingConfig(steps=40, batch_size=2), description="steps")
    nap: float = Field(0.0, description="seconds per step")
    kill_at: int = Field(-1, description="step at which the process kills itself, the first time")
    mark: str = Field("", description="file that says that it has")


@register_generator("toy-slow")
class Slow(Generator):
    """One number learnt in many steps."""

    Config = SlowConfig
    labels = "joint"

    def fit(self, train_set: VolumeSet, val: VolumeSet, run: Run) -> dict[str, dict[str, Tensor]]:
        torch.manual_seed(run.seed)
        network = nn.Sequential(
            nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1)
        )
        batches = Batches(len(train_set), self.config.training.batch_size, run.seed)

        def batch(step: int) -> Tensor:
            time.sleep(self.config.nap)
            mark = Path(self.config.mark)
            if step == self.config.kill_at and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.tensor([[train_set.image(i).mean()] for i in batches(step)])

        def losses(networks: Mapping[str, nn.Module], x: Tensor) -> Iterator[tuple[str, Tensor]]:
            yield "all", (networks["net"](x) - x).square().mean()

        return train(run, {"net": network}, losses, batch, self.config.training)

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        for i in indices:
            image = run.noise(i, run.grid).abs().clamp(0, 1).numpy()
            yield Sample(image, (image > 0.5).astype(np.uint8))


class ToyConvConfig(SegmenterConfig):
    """A fault, if any."""

    fault: Fault = Field("", description="what goes wrong")


class ToyNet(nn.Module):
    """One convolution."""

    def __init__(self, out_channels: int, fault: str) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, out_channels, 3, padding=1)
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        misbehave(self.fault)
        y: Tensor = self.conv(x)
        if self.fault == "nan":
            y = y * float("nan")
        return y[..., 1:] if self.fault == "shape" else y


@register_segmenter("toy-conv", ToyConvConfig)
def toy_conv(
    in_channels: int, out_channels: int, size: tuple[int, int, int], config: ToyConvConfig
) -> nn.Module:
    """One convolution."""
    return ToyNet(out_channels, config.fault)

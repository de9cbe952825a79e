"""Run: what the harness hands to a plug-in's fit and sample."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.device import Device
from bench.disk import load_tensors
from bench.ranks import ALONE, Ranks
from bench.records import Record

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from bench.volumes import VolumeSet

Progress = Callable[[int, int, Mapping[str, float]], None]  # step, of how many, scalars


def _silent(step: int, total: int, scalars: Mapping[str, float]) -> None:
    """Nobody watches."""


@dataclass
class Run:
    """Device, precision, seed, progress, scratch folder, and the states of earlier stages.

    `sets` holds the real cases that a plug-in may see: "train" where it is given data at all, and,
    when a generator that declares `needs_held` is sampled, "held" where cases were held out for
    it. No fit sees "held", and nothing sees the validation or test cases here.
    """

    seed: int
    folder: Path  # scratch of this cell: checkpoints, scalar curves; kept between attempts
    grid: tuple[int, int, int]
    label_names: Mapping[int, str]
    device_setting: Device = field(default_factory=Device)
    states: Mapping[str, Path] = field(default_factory=dict)  # stage name -> file of its state
    progress: Progress = _silent
    stop_requested: Callable[[], bool] = lambda: False
    sets: Mapping[str, VolumeSet] = field(default_factory=dict)
    ranks: Ranks = ALONE  # of a cell that trains on several devices
    records: list[Record] = field(default_factory=list)  # what the plug-in measured of itself

    def record(self, metric: str, value: float, label: str = "") -> None:
        """Keep a value that the plug-in measured of itself, such as an autoencoder's PSNR.

        It stands in the run's records beside the cell's own, `label` being the structure it is of.
        A metric named twice keeps the last value.
        """
        same = [r for r in self.records if (r["metric"], r["label"]) == (metric, label)]
        for old in same:
            self.records.remove(old)
        self.records.append(Record(metric=metric, value=float(value), label=label))

    @cached_property
    def fabric(self) -> Fabric:
        """Lightning Fabric: device and precision of every network in this cell."""
        return self.device_setting.fabric(self.ranks.rank, self.ranks.world)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.fabric.device
        return device

    def autocast(self) -> AbstractContextManager[Any]:
        """The run's precision, for forward passes outside the training loop."""
        context: AbstractContextManager[Any] = self.fabric.autocast()
        return context

    def state(self, stage: str | None = None) -> dict[str, Any]:
        """What the fit of `stage` returned, on the run's device; the only stage by default.

        InputError if its file is damaged or holds code, which is never run.
        """
        if stage is None:
            if len(self.states) != 1:
                raise ValueError(
                    f"Name one of the stages {sorted(self.states)}; there are {len(self.states)}."
                )
            stage = next(iter(self.states))
        if stage not in self.states:
            raise ValueError(
                f"Stage {stage!r} is not among those needed here, {sorted(self.states)}; name "
                "it in needs."
            )
        state: dict[str, Any] = load_tensors(self.states[stage], self.device)
        return state

    def noise(self, index: int, shape: tuple[int, ...], stream: int = 0) -> torch.Tensor:
        """Standard normal noise of volume `index`, float32 on the run's device.

        Drawn on the CPU from (seed, stream, index), so that volume i is the same whatever the
        batch size, the range asked for, the worker or the device. A model that needs several
        draws for one volume asks for several streams.
        """
        draw = np.random.default_rng([self.seed, stream, index]).standard_normal(
            shape, dtype=np.float32
        )
        return torch.from_numpy(draw).to(self.device)


def seed_globals(seed: int) -> None:
    """Set the random states of this process, before a plug-in begins to work in it."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that plug-ins use still draw from it
    random.seed(seed)

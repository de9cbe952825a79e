"""What a fit leaves on the disk so that it goes on where it was: the last state and the best."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bench.divergence import Diverged, LossWatch
from bench.errors import InputError
from bench.optimizers import lay_as_weights
from bench.training_config import TrainingConfig

States = dict[str, dict[str, Tensor]]  # state dict of each network, by its name

COUNTS = ("step", "best_score", "best_step", "stale")


@dataclass
class Fit:
    """Everything that changes while a fit runs; what a checkpoint holds."""

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    watch: LossWatch
    averages: dict[str, AveragedModel] = field(default_factory=dict)
    step: int = 0
    best_score: float = -math.inf
    best_step: int = 0  # of the best validation; 0 before the first
    stale: int = 0  # validations since a better one

    def kept(self) -> States:
        """State of each network, the averaged weights where there are some.

        Tensors lie contiguously whatever the memory format that the fit runs with.
        """
        return {
            name: {key: value.contiguous() for key, value in network.state_dict().items()}
            for name, network in self.shown().items()
        }

    def shown(self) -> dict[str, nn.Module]:
        """The networks as they are judged, sampled and kept: the averaged where there are some."""
        return {
            name: self.averages[name].module if name in self.averages else network
            for name, network in self.networks.items()
        }

    def ended(self, config: TrainingConfig) -> bool:
        """Whether the fit took all its steps, or lost its patience."""
        return self.step >= config.steps or 0 < config.patience <= self.stale

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": {k: v.state_dict() for k, v in self.networks.items()},
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()},
            "averages": {k: v.state_dict() for k, v in self.averages.items()},
            "watch": self.watch.state_dict(),
            **{name: getattr(self, name) for name in COUNTS},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for part in ("networks", "optimizers", "averages"):
            for name, value in getattr(self, part).items():
                value.load_state_dict(state[part][name])
        for optimizer in self.optimizers.values():
            lay_as_weights(optimizer)
        self.watch.load_state_dict(state["watch"])
        for name in COUNTS:
            setattr(self, name, state[name])


NO_STEP = {"keep", "patience", "explode_factor"}
"""Fields of a TrainingConfig that say when a fit ends and what is kept, and change no step."""


def describe(
    config: TrainingConfig, networks: Mapping[str, nn.Module], seed: int
) -> dict[str, Any]:
    """What a checkpoint belongs to: all that must be equal where a fit is to go on from it."""
    training = config.model_dump(mode="json", exclude=NO_STEP)
    shapes = {
        f"network {name}: {key}": list(value.shape)
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    return {"seed": seed, **{f"training.{k}": v for k, v in training.items()}, **shapes}


@dataclass
class Checkpoints:
    """The files of one fit: `last` holds all of it, `best` the networks of its best validation.

    A file is written beside the earlier one and then takes its place, so that a fit always has a
    whole one. Where the disk is full the fit goes on without, and tries again later.
    """

    last: Path
    best: Path
    belongs_to: Mapping[str, Any]
    minutes: float  # between two checkpoints
    writes: bool = True  # of several processes that train together, one does
    step: int = 0  # of the last checkpoint on the disk; 0 where there is none
    waiting: dict[str, Any] | None = None  # a best state that the disk had no room for
    _tried: float = field(default_factory=lambda: time.monotonic())

    def load(self, fit: Fit, device: torch.device) -> None:
        """Put `fit` where the last checkpoint was; InputError if it is another fit's."""
        if not self.last.is_file():
            return
        state = _read(self.last, device)
        self._refuse_another(state.get("belongs_to", {}))
        fit.load_state_dict(state)
        self.step = fit.step
        if 0 < fit.best_step < fit.step and not self.best.is_file():
            raise InputError(
                f"{self.best}, which {self.last} needs, is missing; put it back or remove both to "
                "begin anew."
            )

    def due(self, seconds: float | None = None) -> bool:
        """Whether the last try is `seconds` ago, by default the time between checkpoints."""
        return self.writes and time.monotonic() - self._tried > (seconds or 60 * self.minutes)

    def save(self, fit: Fit) -> bool:
        """Write the last state; False, with a warning, if the disk refuses.

        Diverged if a weight is not finite: the earlier checkpoint stays.
        """
        require_finite_weights(fit)
        if not self.writes:
            return True
        self._tried = time.monotonic()
        try:
            if (
                self.waiting is not None
            ):  # the last state must not speak of a best that is not there
                _write(self.best, self.waiting)
                self.waiting = None
            _write(self.last, {"belongs_to": dict(self.belongs_to), **fit.state_dict()})
        except OSError as error:
            warnings.warn(
                f"{self.last} of step {fit.step} could not be written ({error}); {self.kept()}, "
                "and the fit goes on.",
                RuntimeWarning,
                stacklevel=3,
            )
            return False
        self.step = fit.step
        return True

    def save_best(self, fit: Fit) -> None:
        """Keep the networks as they are now; in memory until the disk has room for them."""
        require_finite_weights(fit)
        if not self.writes:
            return
        facts, networks = {"step": fit.step, "score": fit.best_score}, fit.kept()
        try:
            _write(self.best, {**facts, "networks": networks})
            self.waiting = None
        except OSError as error:
            copies = {
                name: {key: value.detach().cpu().clone() for key, value in weights.items()}
                for name, weights in networks.items()
            }
            self.waiting = {**facts, "networks": copies}
            warnings.warn(
                f"{self.best} of step {fit.step} could not be written ({error}); the best networks "
                "stay in memory.",
                RuntimeWarning,
                stacklevel=3,
            )

    def best_networks(self, device: torch.device) -> States:
        """State dict of each network at the best validation."""
        state = self.waiting if self.waiting is not None else _read(self.best, device)
        networks: States = state["networks"]
        return networks

    def kept(self) -> str:
        """What a fit that ends here would go on from, in words."""
        if not self.step:
            return "there is no earlier checkpoint"
        return f"the last good checkpoint, of step {self.step}, is {self.last}"

    def _refuse_another(self, found: Mapping[str, Any]) -> None:
        for name in [*self.belongs_to, *found]:
            there, asked = found.get(name, "absent"), self.belongs_to.get(name, "absent")
            if there != asked:
                raise InputError(
                    f"The checkpoint {self.last} is of another configuration: {name} is {there} "
                    f"there and {asked} here; remove it, or give the fit the values it was begun "
                    "with."
                )


def require_finite_weights(fit: Fit) -> None:
    """Diverged if a weight or a statistic of a network is not finite."""
    for name, network in (*fit.networks.items(), *fit.averages.items()):
        for key, value in network.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise Diverged(
                    f"{key} of the network {name!r} is not finite at step {fit.step}; lower the "
                    "learning rate"
                )


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch and pickle have many kinds for a damaged file
        raise InputError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); put a whole one there "
            "or remove it to begin anew."
        ) from error
    return state


def _write(path: Path, state: Mapping[str, Any]) -> None:
    """Write by temporary file, fsync and rename; OSError if the disk refuses, the old file left."""
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(exist_ok=True)  # below what is there: its run may be gone by now
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except Exception as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch's writer hides the system's error behind a RuntimeError of its own.
        refused = error if isinstance(error, OSError) else error.__context__
        if isinstance(refused, OSError):
            raise refused from None
        raise

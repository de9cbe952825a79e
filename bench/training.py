"""The one training loop: every generator and every segmenter learns here.

The batch, the noise and every random draw of step t follow from (seed, t) alone, so a fit that was
stopped and resumed repeats exactly the steps that an uninterrupted one takes.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bench.errors import Interrupted as Interrupted
from bench.training_config import TrainingConfig as TrainingConfig

if TYPE_CHECKING:
    from bench.run import Run

Networks = Mapping[str, nn.Module]
Losses = Callable[[Networks, Any], Iterator[tuple[str, Tensor]]]


class Diverged(RuntimeError):
    """A loss became nan or infinite."""


@dataclass(frozen=True)
class Batches:
    """Which cases step t sees: each epoch a new permutation of all n, drawn from (seed, epoch)."""

    n: int
    batch_size: int
    seed: int

    def __call__(self, step: int) -> list[int]:
        """Indices of the cases of this step, `batch_size` of them."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [int(self._permutation(p // self.n)[p % self.n]) for p in positions]

    def _permutation(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.n)


@dataclass
class Fit:
    """Everything that changes while a fit runs; what a checkpoint holds."""

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, AveragedModel] = field(default_factory=dict)
    step: int = 0
    best_score: float = -math.inf
    best: dict[str, Any] | None = None

    def kept(self) -> dict[str, dict[str, Tensor]]:
        """State of each network, the averaged weights where there are some."""
        return {
            name: (self.averages[name].module if name in self.averages else network).state_dict()
            for name, network in self.networks.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": {k: v.state_dict() for k, v in self.networks.items()},
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()},
            "averages": {k: v.state_dict() for k, v in self.averages.items()},
            "step": self.step,
            "best_score": self.best_score,
            "best": self.best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for part in ("networks", "optimizers", "averages"):
            for name, value in getattr(self, part).items():
                value.load_state_dict(state[part][name])
        self.step, self.best_score, self.best = state["step"], state["best_score"], state["best"]


def train(
    run: Run,
    networks: Mapping[str, nn.Module],
    losses: Losses,
    batch: Callable[[int], Any],
    config: TrainingConfig,
    *,
    optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
    average: Sequence[str] = (),
    validate: Callable[[Networks], Mapping[str, float]] | None = None,
    select: str | None = None,
    name: str = "fit",
) -> dict[str, dict[str, Tensor]]:
    """Train `networks` for `config.steps` steps and return the state dict of each.

    Args:
        networks: by name; moved to the run's device here.
        losses: `losses(networks, batch)` yields (optimizer name, scalar loss) in the order in which
            the optimisers step; what it computes after a yield sees that step done, as a GAN needs.
        batch: `batch(step)` is the data of a step. Torch's random state is set from (seed, step)
            before it is called, so both may draw freely.
        config: steps, learning rate, averaging, intervals.
        optimizers: by name; AdamW over all networks, named "all", by default.
        average: networks whose exponential moving average is kept instead of the last weights
            (where `config.ema_decay` is set).
        validate: scalars on the validation cases, with the averaged networks where there are some.
        select: name of a validation scalar, higher is better; the best networks are returned
            instead of the last.
        name: of the checkpoint and the curve; a stage that trains twice gives two names.

    Raises:
        Diverged: a loss is not finite.
        Interrupted: the run asked to stop; the same call later goes on from the checkpoint.
    """
    fit = _prepare(run, networks, optimizers, average, config)
    checkpoint = run.folder / "resume" / f"{name}.pt"
    if checkpoint.is_file():
        fit.load_state_dict(torch.load(checkpoint, map_location=run.device, weights_only=True))
    curve = Curve(run.folder / f"{name}.csv", fit.step)
    saved = time.monotonic()
    while fit.step < config.steps:
        _seed_step(run.seed, fit.step)
        for optimizer in fit.optimizers.values():
            _set_learning_rate(optimizer, config, fit.step)
        scalars = _step(run, fit, losses, batch(fit.step), config)
        for key, averaged in fit.averages.items():
            averaged.update_parameters(fit.networks[key])
        fit.step += 1
        if validate is not None and _due(fit.step, config):
            scalars |= _validate(fit, validate, select)
        curve.write(fit.step, scalars)
        run.progress(fit.step, config.steps, scalars)
        late = time.monotonic() - saved > 60 * run.device_setting.checkpoint_minutes
        if late or run.stop_requested():
            _save(fit, checkpoint)
            saved = time.monotonic()
            if run.stop_requested() and fit.step < config.steps:
                raise Interrupted(
                    f"Stopped at step {fit.step} of {config.steps}; run again to go on."
                )
    return fit.best if fit.best is not None else fit.kept()


def _prepare(
    run: Run,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer] | None,
    average: Sequence[str],
    config: TrainingConfig,
) -> Fit:
    for network in networks.values():
        network.to(run.device).train()
    if optimizers is None:
        parameters = [p for n in networks.values() for p in n.parameters() if p.requires_grad]
        optimizers = {"all": adamw(parameters, config)}
    averages = {}
    if config.ema_decay:
        for name in average:
            averages[name] = AveragedModel(
                networks[name],
                multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay),  # type: ignore[no-untyped-call]
            )
    return Fit(dict(networks), dict(optimizers), averages)


def adamw(parameters: Sequence[nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW as the configuration says, fused where torch has it for the device."""
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainingConfig, step: int) -> None:
    """Linear warm-up, then constant or half a cosine down to 1 % of the peak."""
    factor = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        length = max(1, config.steps - config.warmup_steps)
        done = min(1.0, max(0, step - config.warmup_steps) / length)
        factor *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _seed_step(seed: int, step: int) -> None:
    mixed = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
    torch.manual_seed(int(mixed[0]) << 31 | int(mixed[1]) >> 1)


def _step(
    run: Run, fit: Fit, losses: Losses, batch: Any, config: TrainingConfig
) -> dict[str, float]:
    """One batch: every optimiser steps once for each loss that names it."""
    scalars: dict[str, float] = {}
    with run.autocast():
        for name, loss in losses(fit.networks, batch):
            value = float(loss.detach())
            if not math.isfinite(value):
                raise Diverged(
                    f"The loss {name!r} is {value} at step {fit.step}; lower the learning rate."
                )
            optimizer = fit.optimizers[name]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(run.device.type, enabled=False):
                run.fabric.backward(loss)
            if config.clip_norm:
                owned = [p for group in optimizer.param_groups for p in group["params"]]
                torch.nn.utils.clip_grad_norm_(owned, config.clip_norm)
            optimizer.step()
            # Autocast keeps its casts of weights until it ends; the next yield must see this step.
            torch.clear_autocast_cache()
            scalars[f"loss/{name}"] = value
    return scalars


def _due(step: int, config: TrainingConfig) -> bool:
    return step == config.steps or bool(config.validate_every and step % config.validate_every == 0)


def _validate(
    fit: Fit, validate: Callable[[Networks], Mapping[str, float]], select: str | None
) -> dict[str, float]:
    shown = {n: fit.averages[n].module if n in fit.averages else m for n, m in fit.networks.items()}
    training = {name: network.training for name, network in shown.items()}
    for network in shown.values():
        network.eval()
    with torch.no_grad():
        scores = {f"val/{k}": float(v) for k, v in validate(shown).items()}
    for name, network in shown.items():
        network.train(training[name])
    if select is not None and not scores[f"val/{select}"] <= fit.best_score:
        # A nan score (no structure in any validation case) also replaces: later weights win.
        score = scores[f"val/{select}"]
        fit.best_score = score if math.isfinite(score) else -math.inf
        fit.best = {
            name: {k: v.detach().cpu().clone() for k, v in state.items()}
            for name, state in fit.kept().items()
        }
    return scores


def _save(fit: Fit, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        torch.save(fit.state_dict(), stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


class Curve:
    """Scalars of a fit as CSV in long form: step, name, value."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = path.read_text(encoding="utf-8").splitlines()[1:] if path.is_file() else []
        # What lies behind the checkpoint is computed, and written, again.
        kept = [row for row in rows if row.count(",") == 2 and int(row.split(",")[0]) <= step]
        path.write_text("\n".join(["step,name,value", *kept, ""]), encoding="utf-8")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows((step, name, value) for name, value in scalars.items())

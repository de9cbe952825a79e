"""The one training loop: every generator and every segmenter learns here.

The batch, the noise and every random draw of step t follow from (seed, t) alone, so a fit that was
stopped and resumed repeats exactly the steps that an uninterrupted one takes.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bench.checkpoint import Checkpoints, Fit, States, describe
from bench.curve import Curve, write_preview
from bench.divergence import Diverged as Diverged
from bench.divergence import LossWatch, require_finite
from bench.errors import InputError
from bench.errors import Interrupted as Interrupted
from bench.optimizers import adamw as adamw
from bench.optimizers import clip, set_learning_rate
from bench.small_convolutions import keep_small_in_float32
from bench.training_config import TrainingConfig as TrainingConfig

if TYPE_CHECKING:
    from bench.run import Run

Networks = Mapping[str, nn.Module]
Losses = Callable[[Networks, Any], Iterator[tuple[str, Tensor]]]
Validate = Callable[[Networks], Mapping[str, float]]
Preview = Callable[[Networks], NDArray[np.float32]]


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


def train(
    run: Run,
    networks: Mapping[str, nn.Module],
    losses: Losses,
    batch: Callable[[int], Any],
    config: TrainingConfig,
    *,
    optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
    average: Sequence[str] = (),
    validate: Validate | None = None,
    select: str | None = None,
    preview: Preview | None = None,
    name: str = "fit",
) -> States:
    """Train `networks` for `config.steps` steps and return the state dict of each.

    Scalars go to `run.folder/NAME.csv` (and to TensorBoard where it is installed), pictures to
    `run.folder/previews`, the last and the best checkpoint to `run.folder/resume`. Steps taken and
    whether the fit ended early are recorded.

    Args:
        networks: by name; moved to the run's device here.
        losses: `losses(networks, batch)` yields (optimizer name, scalar loss) in the order in which
            the optimisers step; what it computes after a yield sees that step done, as a GAN needs.
        batch: `batch(step)` is the data of a step. The random states of torch, NumPy and Python
            are set from (seed, step) before it is called, so both may draw freely.
        config: steps, learning rate, averaging, intervals, what is kept.
        optimizers: by name; AdamW over all networks, named "all", by default.
        average: networks whose exponential moving average is kept instead of the last weights
            (where `config.ema_decay` is set).
        validate: scalars on the validation cases, with the averaged networks where there are some.
        select: the validation scalar by which networks are the best, for `config.keep` and
            `config.patience`: "psnr" where higher is better, "-loss" where lower is.
        preview: a few volumes (n, D, H, W) in [0, 1], drawn with the averaged networks in
            evaluation mode, at each validation; shown as a picture. Its failure is a warning.
        name: of the checkpoint and the curve; a stage that trains twice gives two names.

    Raises:
        Diverged: a loss, a gradient or a weight is not finite, or a loss exploded.
        InputError: the checkpoint is of another configuration, or keep and patience have no score.
        Interrupted: the run asked to stop; the same call later goes on from the checkpoint.
    """
    _require_score(config, validate, select)
    fit = _prepare(run, networks, optimizers, average, config)
    folder = (run.ranks.folder or run.folder) / "resume"
    checkpoints = Checkpoints(
        last=folder / f"{name}.pt",
        best=folder / f"{name}.best.pt",
        belongs_to=describe(config, networks, run.seed),
        minutes=run.device_setting.checkpoint_minutes,
        writes=run.ranks.leads,
    )
    checkpoints.load(fit, run.device)
    with Curve(run.folder / f"{name}.csv", fit.step) as curve:
        while not fit.ended(config):
            try:
                scalars = _step(run, fit, losses, batch, config)
                if _due(fit.step, config):
                    scores = run.ranks.told(lambda: _validate(fit, validate))
                    _improve(fit, scores, select if validate else None, config, checkpoints)
                    scalars |= scores
                    _preview(run, fit, preview, name)
                curve.write(fit.step, scalars)
                run.progress(fit.step, config.steps, _outcomes(scalars))
                _checkpoint(run, fit, checkpoints, config)
            except Diverged as error:
                raise Diverged(f"{error} ({checkpoints.kept()}).") from None
    _record(run, fit, config, name)
    best = config.keep == "best" and fit.best_step != fit.step
    return run.ranks.same(
        lambda: checkpoints.best_networks(run.device) if best else fit.kept(), fit.kept()
    )


def _require_score(config: TrainingConfig, validate: Validate | None, select: str | None) -> None:
    if validate is not None and select is not None:
        return
    for field_, value, off in (("keep", config.keep, "last"), ("patience", config.patience, 0)):
        if value != off:
            raise InputError(
                f"training.{field_} is {value}, but this fit has no validation score to go by; set "
                f"it to {off} or give the fit validation cases."
            )


def _prepare(
    run: Run,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer] | None,
    average: Sequence[str],
    config: TrainingConfig,
) -> Fit:
    channels_last = run.device_setting.resolved_memory_format() == "channels_last"
    for network in networks.values():
        network.to(run.device).train()
        if channels_last:
            _lay_channels_last(network)
        if run.device.type == "cpu" and run.device_setting.resolved_precision() == "bf16-mixed":
            keep_small_in_float32(network)
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
    return Fit(dict(networks), dict(optimizers), LossWatch(config.explode_factor), averages)


def _lay_channels_last(network: nn.Module) -> None:
    """Weights of 3D convolutions with their channels last; what they compute then lies so too."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def _seed_step(seed: int, step: int, rank: int = 0) -> None:
    entropy = [seed, step, rank] if rank else [seed, step]
    mixed = np.random.SeedSequence(entropy).generate_state(3, np.uint32)
    torch.manual_seed(int(mixed[0]) << 31 | int(mixed[1]) >> 1)
    np.random.seed(mixed[2])  # noqa: NPY002 - libraries that plug-ins use still draw from it
    random.seed(int(mixed[2]))


def _step(
    run: Run, fit: Fit, losses: Losses, batch: Callable[[int], Any], config: TrainingConfig
) -> dict[str, float]:
    """One batch: every optimiser steps once for each loss that names it."""
    _seed_step(run.seed, fit.step)
    for optimizer in fit.optimizers.values():
        set_learning_rate(optimizer, config, fit.step)
    scalars: dict[str, float] = {}
    data, weight = run.ranks.share(batch(fit.step), config.batch_size)
    if run.ranks.rank:  # noise of its own; the leader's is that of a fit on one device
        _seed_step(run.seed, fit.step, run.ranks.rank)
    with run.autocast():
        for name, loss in losses(fit.networks, data):
            value = run.ranks.mean(float(loss.detach()), weight)
            fit.watch.see(name, value, fit.step)
            optimizer = fit.optimizers[name]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(run.device.type, enabled=False):
                run.fabric.backward(loss)
            run.ranks.average_gradients(optimizer, weight)
            norm = clip(optimizer, config.clip_norm)
            require_finite(norm, f"gradient norm of {name!r}", fit.step)
            optimizer.step()
            # Autocast keeps its casts of weights until it ends; the next yield must see this step.
            torch.clear_autocast_cache()
            scalars[f"loss/{name}"] = value
            scalars[f"grad_norm/{name}"] = norm
            scalars[f"lr/{name}"] = optimizer.param_groups[0]["lr"]
    run.ranks.follow(fit.networks.values())
    for key, averaged in fit.averages.items():
        averaged.update_parameters(fit.networks[key])
    fit.step += 1
    return scalars


def _outcomes(scalars: Mapping[str, float]) -> dict[str, float]:
    """What a person watching wants to see of the scalars."""
    return {name: v for name, v in scalars.items() if name.startswith(("loss/", "val/"))}


def _due(step: int, config: TrainingConfig) -> bool:
    return step == config.steps or bool(config.validate_every and step % config.validate_every == 0)


@contextmanager
def _judged(fit: Fit) -> Iterator[dict[str, nn.Module]]:
    """The networks that are kept, in evaluation mode and without gradients, for a while."""
    shown = fit.shown()
    training = {name: network.training for name, network in shown.items()}
    for network in shown.values():
        network.eval()
    try:
        with torch.no_grad():
            yield shown
    finally:
        for name, network in shown.items():
            network.train(training[name])


def _validate(fit: Fit, validate: Validate | None) -> dict[str, float]:
    if validate is None:
        return {}
    with _judged(fit) as shown:
        return {f"val/{k}": float(v) for k, v in validate(shown).items()}


def _improve(
    fit: Fit,
    scores: Mapping[str, float],
    select: str | None,
    config: TrainingConfig,
    checkpoints: Checkpoints,
) -> None:
    """Keep the networks if they are better than at every validation before.

    Before the first score that is a number, as of structures that no validation case has, later
    networks win.
    """
    if select is None:
        return
    name = f"val/{select.removeprefix('-')}"
    if name not in scores:
        raise ValueError(f"select is {select!r}, but validate gave only {sorted(scores)}.")
    score = -scores[name] if select.startswith("-") else scores[name]
    better = math.isfinite(score) and score > fit.best_score
    fit.stale = 0 if better else fit.stale + 1
    if not better and fit.best_score > -math.inf:
        return
    fit.best_score = score if better else -math.inf
    fit.best_step = fit.step
    if not fit.ended(config):  # else they are the last as well
        checkpoints.save_best(fit)


def _preview(run: Run, fit: Fit, preview: Preview | None, name: str) -> None:
    if preview is None or not run.ranks.leads:
        return
    path = run.folder / "previews" / f"{name}-{fit.step:06d}.png"
    try:
        with _judged(fit) as shown:
            write_preview(path, preview(shown))
    except Exception as error:  # a picture is no reason to lose a fit
        warnings.warn(
            f"No picture at step {fit.step}: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=3,
        )


WORTH_KEEPING_S = 60.0
"""The end of a fit gets a checkpoint if it took longer: what follows in its cell may still fail."""


def _checkpoint(run: Run, fit: Fit, checkpoints: Checkpoints, config: TrainingConfig) -> None:
    """Save by time, at the end of a long fit, and where the run is to stop: then Interrupted."""
    ended = fit.ended(config)
    if run.ranks.any(run.stop_requested()) and not ended:
        saved = checkpoints.save(fit)
        raise Interrupted(
            f"Stopped at step {fit.step} of {config.steps}; run again to go on"
            + ("." if saved else f" from step {checkpoints.step}: the disk took no later one.")
        )
    # Weights while a loss is beyond its limit are no good place to go on from.
    if checkpoints.due(WORTH_KEEPING_S if ended else None) and not fit.watch.high():
        checkpoints.save(fit)


def _record(run: Run, fit: Fit, config: TrainingConfig, name: str) -> None:
    label = "" if name == "fit" else name
    run.record("steps", fit.step, label)
    run.record("stopped_early", float(fit.step < config.steps), label)

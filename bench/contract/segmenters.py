"""The contract of a segmenter."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.cells.labeller import every_label
from bench.cells.segmentation import fit_segmenter, supervised
from bench.contract.config import (
    check_described,
    check_frozen,
    check_identity,
    check_round_trip,
)
from bench.contract.fits import DEVICE, Steps, first_difference, stir
from bench.contract.process import changes, elsewhere, process_state, restore
from bench.contract.requirement import Broken, Requirements
from bench.contract.small import GRID, LARGER, OTHER, STEPS, STOP, Sets, small_config, small_sets
from bench.errors import InputError, Interrupted
from bench.registry import SEGMENTERS
from bench.run import Run, seed_globals
from bench.scaling import Grid, shown
from bench.training_config import TrainingConfig

CHANNELS = ((1, 2), (2, 4))  # in, out: the harness asks for one input today
CLASSES = 3
TOLERANCE = 1e-4  # of logits: batches of another size round differently


@dataclass
class SegmenterSubject:
    """A segmenter and the folder for what it leaves."""

    name: str
    folder: Path
    plugins: Sequence[Path] = ()
    settings: Sequence[str] = ()

    @property
    def segmenter(self) -> Any:
        return SEGMENTERS.get(self.name)

    @property
    def plugin(self) -> Any:
        return self.segmenter.build

    @cached_property
    def config(self) -> dict[str, Any]:
        return small_config(self.segmenter.Config, "segmenters", self.name, self.settings)

    @cached_property
    def grid(self) -> Grid:
        """The smaller of two that the segmenter takes."""
        return next((g for g in (GRID, LARGER) if not self.refusal(g)), GRID)

    @cached_property
    def sets(self) -> Sets:
        return small_sets(self.folder, self.grid)

    def refusal(self, grid: Grid) -> str:
        """Why the segmenter does not take a grid, in its own words; "" if it does.

        Asked as the harness asks before a run: on torch's meta device, where nothing is computed.
        """
        try:
            with torch.device("meta"):
                build(self.name, self.config, grid, 1, CLASSES)
        except InputError as error:
            return str(error) or "no reason"
        return ""

    def place(self, name: str) -> Path:
        """The folder of a fit."""
        return self.folder / self.name / name

    def train(self, folder: Path, stop_after: int = 0) -> None:
        train_few_steps(self.name, self.config, self.sets, folder, stop_after)

    @cached_property
    def base(self) -> Path:
        """The fit that others are compared with."""
        self.train(self.place("base"))
        return self.place("base")

    @cached_property
    def stopped(self) -> Path:
        """A fit that was stopped and begun again."""
        stir()
        folder = self.place("stopped")
        shutil.rmtree(folder, ignore_errors=True)  # what a try left that ended with an error
        try:
            self.train(folder, STOP)
        except Interrupted:
            self.train(folder)
        return folder

    def network(self, grid: Grid | None = None, inputs: int = 1, out: int = CLASSES) -> nn.Module:
        """Its weights drawn anew from one seed."""
        return build(self.name, self.config, grid or self.grid, inputs, out)


def build(name: str, config: Mapping[str, Any], grid: Grid, inputs: int, out: int) -> nn.Module:
    """The network as the harness builds it: right after the random state was set."""
    segmenter = SEGMENTERS.get(name)
    seed_globals(0)
    network = segmenter.build(inputs, out, grid, segmenter.Config.model_validate(config))
    if not isinstance(network, nn.Module):
        raise Broken(f"it returned a {type(network).__name__}, no torch.nn.Module")
    return network


def volumes(grid: Grid, n: int = 2, channels: int = 1) -> Tensor:
    """Noise (n, channels, D, H, W) in [0, 1]."""
    return torch.rand(n, channels, *grid, generator=torch.Generator().manual_seed(1))


def logits_of(network: nn.Module, x: Tensor) -> Tensor:
    """In evaluation mode."""
    with torch.no_grad():
        logits = network.eval()(x)
    if not isinstance(logits, Tensor):
        raise Broken(f"the network gives a {type(logits).__name__} in evaluation mode, no tensor")
    return logits


SEGMENTER: Requirements[SegmenterSubject] = Requirements()
require = SEGMENTER.add


@require(
    "identity",
    "a version as text, and a docstring whose first line bench list shows",
    'write a docstring under the function and give register_segmenter version="1"',
)
def identity(subject: SegmenterSubject) -> None:
    check_identity(SEGMENTERS, subject.name)


@require(
    "config",
    "Config is a frozen pydantic model, and so are its parts; unknown keys are refused",
    "derive it from bench.SegmenterConfig and give it to register_segmenter",
)
def config(subject: SegmenterSubject) -> None:
    check_frozen(subject.segmenter.Config)


@require(
    "config described",
    "every field of Config has a default and a description",
    'write width: int = Field(16, description="what it does")',
    needs=["config"],
)
def config_described(subject: SegmenterSubject) -> None:
    check_described(subject.segmenter.Config)


@require(
    "config stored",
    "the defaults written as JSON give the same configuration again",
    "use numbers, texts, tuples and nested models as fields, and validators that take their own "
    "output",
    needs=["config"],
)
def config_stored(subject: SegmenterSubject) -> None:
    check_round_trip(subject.segmenter.Config)


@require(
    "build",
    f"a torch.nn.Module for {shown(GRID)} or {shown(LARGER)}, also on the meta device; for sizes "
    "that it cannot take an InputError, nothing else",
    "raise bench.InputError for such sizes (bench.sizes.require_divisible), and read no values of "
    "tensors while the network is built",
    needs=["config stored"],
)
def builds(subject: SegmenterSubject) -> None:
    reason = subject.refusal(GRID)
    if reason and subject.refusal(LARGER):
        raise Broken(f"both are refused: {reason}")
    for odd in ((33, 35, 37), (16, 8, 4)):
        subject.refusal(odd)  # anything but an InputError ends here
    subject.network()


@require(
    "output",
    "logits (B, out_channels, D, H, W), finite, for any number of input and output channels",
    "give the last layer out_channels channels and the first in_channels; no softmax and no crop",
    needs=["build"],
)
def output(subject: SegmenterSubject) -> None:
    for inputs, out in CHANNELS:
        network = subject.network(inputs=inputs, out=out)
        logits = logits_of(network, volumes(subject.grid, 2, inputs))
        expected = (2, out, *subject.grid)
        if tuple(logits.shape) != expected:
            raise Broken(
                f"for {inputs} input and {out} output channels the shape is "
                f"{tuple(logits.shape)}, not {expected}"
            )
        if not logits.isfinite().all():
            raise Broken("there are values that are not finite")


@require(
    "heads",
    "in training the same, or (B, heads, out_channels, D, H, W), all on the input's grid",
    "stack coarser heads along axis 1, resized to the grid, the finest first",
    needs=["output"],
)
def heads(subject: SegmenterSubject) -> None:
    logits = subject.network().train()(volumes(subject.grid))
    if not isinstance(logits, Tensor):
        raise Broken(f"a {type(logits).__name__} came, no tensor")
    shape = tuple(logits.shape)
    whole, per_head = (2, CLASSES, *subject.grid), (CLASSES, *subject.grid)
    if shape != whole and not (len(shape) == 6 and shape[0] == 2 and shape[2:] == per_head):
        raise Broken(f"the shape is {shape}, not {whole} or {(2, 'heads', *per_head)}")


@require(
    "gradients",
    "the loss's gradient reaches every parameter that asks for one, and is finite",
    "remove layers that no output comes from, or set requires_grad_(False) on what stays fixed",
    needs=["heads"],
)
def gradients(subject: SegmenterSubject) -> None:
    network = subject.network().train()
    x = volumes(subject.grid)
    labels = torch.randint(
        0, CLASSES, (2, *subject.grid), generator=torch.Generator().manual_seed(2)
    )
    loss = supervised(network(x), labels, nn.CrossEntropyLoss())
    loss.backward()  # type: ignore[no-untyped-call]
    asked = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    if not asked:
        raise Broken("no parameter asks for a gradient")
    idle = [name for name, p in asked if p.grad is None]
    if idle:
        raise Broken(f"{len(idle)} of {len(asked)} parameters get none, the first is {idle[0]}")
    wild = [name for name, p in asked if p.grad is not None and not p.grad.isfinite().all()]
    if wild:
        raise Broken(f"that of {wild[0]} is not finite")


@require(
    "each alone",
    "in evaluation mode the logits of a volume depend on no other volume, and are the same again",
    "normalise over a volume and not over the batch, keep dropout to training, and carry nothing "
    "from one call to the next",
    needs=["output"],
)
def each_alone(subject: SegmenterSubject) -> None:
    network, x = subject.network(), volumes(subject.grid)
    together = logits_of(network, x)
    if not torch.equal(together, logits_of(network, x)):
        raise Broken("the same input gives other logits the second time")
    apart = float((together[1:] - logits_of(network, x[1:])).abs().max())
    if apart > TOLERANCE * max(1.0, float(together.abs().max())):
        raise Broken(f"alone and in a batch of two they differ by up to {apart:.3g}")


@require(
    "weights",
    "the random state before build decides the weights, and the state dict is all of a network",
    "draw weights by torch's initialisers, and register what belongs to the network as parameters "
    "or persistent buffers",
    needs=["each alone"],
)
def weights(subject: SegmenterSubject) -> None:
    first = subject.network()
    stir()
    again = subject.network()
    if difference := first_difference(first.state_dict(), again.state_dict()):
        raise Broken(f"two networks of one seed differ at {difference}")
    with torch.no_grad():
        first.train()(volumes(subject.grid))  # statistics, where it keeps some
    path = subject.folder / f"{subject.name}-weights.pt"
    torch.save(first.state_dict(), path)
    again.load_state_dict(torch.load(path, weights_only=True))
    x = volumes(subject.grid, 1)
    if not torch.equal(logits_of(first, x), logits_of(again, x)):
        raise Broken("another network with the same state dict gives other logits")


@require(
    "process state",
    "building and running leave what belongs to the whole process as it was",
    "change settings of torch or NumPy within a with block that puts them back",
    needs=["output"],
)
def process_left_alone(subject: SegmenterSubject) -> None:
    before = process_state()
    logits_of(subject.network(), volumes(subject.grid, 1))
    found = changes(before, process_state())
    restore(before)
    if found:
        raise Broken("; ".join(found))


@require(
    "deterministic",
    "the same data, configuration and seed give the same weights after a few steps, bit for bit",
    "draw from torch's global state alone, which is set before every step",
    needs=["gradients", "weights"],
)
def deterministic(subject: SegmenterSubject) -> None:
    try:
        _compare(subject.base, subject.stopped, "")
    except (Exception, SystemExit):  # by chance, or because it was stopped
        stir()
        again = subject.place("again")
        subject.train(again)
        _compare(subject.base, again, "two fits")


@require(
    "resume",
    "a fit that is stopped and begun again ends with the weights of one that was not, bit for bit",
    "register what changes in training as parameters or persistent buffers",
    needs=["deterministic"],
)
def resume(subject: SegmenterSubject) -> None:
    _compare(subject.base, subject.stopped, "stopped and begun again")


@require(
    "another process",
    "a worker that knows only the plug-in's name, file and configuration gets the same weights",
    "keep nothing outside the network and its configuration",
    needs=["deterministic"],
)
def another_process(subject: SegmenterSubject) -> None:
    there = subject.place("elsewhere")
    elsewhere(subject.plugins, train_few_steps, subject.name, subject.config, subject.sets, there)
    _compare(subject.base, there, "in another process")


@require(
    "other grid",
    f"a grid of unequal sides, {shown(OTHER)}, is refused by InputError or segmented",
    "raise bench.InputError for what the network cannot take, and assume no cube",
    needs=["output"],
)
def other_grid(subject: SegmenterSubject) -> None:
    if subject.refusal(OTHER):
        return
    shape = tuple(logits_of(subject.network(OTHER), volumes(OTHER, 1)).shape)
    if shape != (1, CLASSES, *OTHER):
        raise Broken(f"the logits have the shape {shape}, not {(1, CLASSES, *OTHER)}")


def train_few_steps(
    name: str, config: Mapping[str, Any], sets: Sets, folder: Path, stop_after: int = 0
) -> None:
    """The harness's own fit; leaves weights.pt."""
    train, steps = sets.part("train"), Steps(stop_after)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(
        seed=0,
        folder=folder,
        grid=train.grid,
        label_names=train.label_names,
        device_setting=DEVICE,
        progress=steps,
        stop_requested=steps.stop_requested,
    )
    seed_globals(0)
    network = fit_segmenter(
        run,
        {"segmenter": name, "config": config},
        every_label(train),
        train,
        sets.part("val"),
        TrainingConfig(steps=STEPS, batch_size=2),
    )
    torch.save(network.state_dict(), folder / "weights.pt")


def _compare(a: Path, b: Path, what: str) -> None:
    states = (torch.load(folder / "weights.pt", weights_only=True) for folder in (a, b))
    if difference := first_difference(*states):
        raise Broken(f"{what}: the weights differ at {difference}")

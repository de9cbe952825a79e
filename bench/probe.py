"""Measure a few true steps of a fit, or the drawing of a few volumes, in this process.

`bench.estimate` runs `probe` in a process of its own, which may be killed: what was measured is
written as soon as it is known. A probe knows no model. It runs the stage's own `fit` through the
training loop on random volumes and watches from outside.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench.cells.fit import make_generator
from bench.cells.labeller import every_label
from bench.cells.memory import PeakMemory
from bench.cells.segmentation import fit_segmenter
from bench.device import Device
from bench.errors import InputError
from bench.registry import load_plugin
from bench.run import Run
from bench.scaling import Work
from bench.training_config import TrainingConfig
from bench.volumes import VolumeSet, VolumeSetWriter

MEASURED, STATE, FAILED = "measured.json", "state.json", "failed.json"
MEMORY = "memory"  # the reason of a failure for want of it
SEGMENTING = "segmenting"  # in place of a stage: the plug-in is a segmenter
WARM, COUNTED, TIMED = 1, 2, (3, 4)
"""Steps of a probed fit: the first is slow, the second is counted, two are timed."""
STEPS = 5  # one more than is timed, because the last may validate
SAMPLING_STEPS = 1, 3  # between which the time of a denoising step is measured
_MB = 2**20


@dataclass(frozen=True)
class Job:
    """What is to be measured: plain values, sent to another process."""

    plugin: str
    config: Mapping[str, Any]  # with few steps already
    stage: str  # "" draws volumes instead, SEGMENTING fits a segmenter
    grid: tuple[int, int, int]
    label_names: Mapping[int, str]
    batch: int
    folder: Path
    device: Device
    memory_mb: float  # that may be used
    states: Mapping[str, Path] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)  # part -> configuration to draw with
    plugins: tuple[Path, ...] = ()


def probe(job: Job) -> None:
    """Leaves MEASURED, then STATE and ``state.pt`` of a stage, or FAILED with the reason."""
    torch.set_num_threads(job.device.threads or torch.get_num_threads())
    try:
        for path in job.plugins:
            load_plugin(path)
        if torch.cuda.is_available() and job.device.torch_device().startswith("cuda"):
            whole = torch.cuda.get_device_properties(0).total_memory / _MB
            torch.cuda.set_per_process_memory_fraction(min(1.0, job.memory_mb / whole))
        work = {"": probe_sampling, SEGMENTING: probe_segmenter}.get(job.stage, probe_stage)
        work(job)
    except (torch.OutOfMemoryError, MemoryError):
        _write(job.folder / FAILED, {"reason": MEMORY})
    except InputError as error:
        _write(job.folder / FAILED, {"reason": str(error)})
    except Exception as error:  # a plug-in may raise anything
        text = " ".join(str(error).split())
        reason = MEMORY if "not enough memory" in text else f"{type(error).__name__}: {text}"
        _write(job.folder / FAILED, {"reason": reason})


def probe_stage(job: Job) -> None:
    """Some steps of the stage's own fit; its state is kept for the stages that need it."""
    train = random_volumes(job.folder / "train", job)
    generator = make_generator(job.plugin, job.config)
    stage = next(stage for stage in generator.stages() if stage.name == job.stage)
    with PeakMemory() as memory, trained_parameters() as trained:
        watch = StepWatch(job, memory)
        state = stage.fit(train, train.subset([]), _run(job, watch))
    if watch.step < TIMED[-1]:
        raise InputError(
            f"the fit took {watch.step} steps of the training loop and {STEPS} were asked for, so "
            "that nothing could be timed"
        )
    _keep(job, state, sum(trained.values()))


def probe_segmenter(job: Job) -> None:
    """Some steps of the harness's own fit of a segmenter, on all labels at once."""
    train = random_volumes(job.folder / "train", job)
    spec = {"segmenter": job.plugin, "config": job.config}
    training = TrainingConfig(steps=STEPS, batch_size=job.batch)
    with PeakMemory() as memory:
        run = _run(job, StepWatch(job, memory))
        network = fit_segmenter(run, spec, every_label(train), train, train.subset([]), training)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    _keep(job, {"segmenter": network.state_dict()}, trained)


def _keep(job: Job, state: Mapping[str, Any], trained: int) -> None:
    """Leave the state and what is known of it."""
    path = job.folder / "state.pt"
    torch.save(state, path)
    facts = {"parameters": count_parameters(state), "trained": trained, "shapes": shapes(state)}
    _write(job.folder / STATE, {**facts, "state_mb": path.stat().st_size / _MB})


class StepWatch:
    """A run's progress: counts one step, times two, and writes down what it knows then."""

    def __init__(self, job: Job, memory: PeakMemory) -> None:
        self.job, self.memory = job, memory
        self.counter = Counter()
        self.modes = ExitStack()
        self.began = self.at = time.perf_counter()
        self.seconds: list[float] = []
        self.step = 0

    def __call__(self, step: int, total: int, scalars: Mapping[str, float]) -> None:
        now = _now()
        self.step = step
        if step in TIMED:
            self.seconds.append(now - self.at)
        if step == WARM:
            self.modes.enter_context(self.counter.counting())
        elif step == COUNTED:
            self.modes.close()
        elif step == TIMED[-1]:
            work = Work(
                self.job.grid,
                float(np.median(self.seconds)),
                _peak_mb(self.memory),
                resting_mb(),
                *self.counter.flops(),
                self.counter.saved / _MB,
                now - self.began,
            )
            _write(self.job.folder / MEASURED, asdict(work))
        self.at = time.perf_counter()


def probe_sampling(job: Job) -> None:
    """Volumes with one step of each sampler and, sampler by sampler, with two more.

    From these follows a volume with all steps: the rest of it (decoding) and so many steps.
    """
    began = time.perf_counter()
    first, more = SAMPLING_STEPS
    with PeakMemory() as memory:
        base = _draw(job, job.config)
        whole = base.cost.copy()
        for facts in job.sampling.values():
            longer = _draw(job, facts["config"])
            whole += (longer.cost - base.cost) / (more - first) * (facts["steps"] - first)
        peak_mb = _peak_mb(memory)
    seconds, linear, quadratic = np.maximum(whole, 0.0).tolist()
    work = Work(
        job.grid,
        seconds,
        peak_mb,
        base.resting_mb,
        linear,
        quadratic,
        2 * base.largest / _MB,  # scores and their softmax, of one layer at a time
        time.perf_counter() - began,
    )
    _write(job.folder / MEASURED, asdict(work))


class Drawn(NamedTuple):
    """What drawing some volumes took."""

    cost: NDArray[np.float64]  # seconds and two kinds of FLOPs, of one volume
    resting_mb: float
    largest: float  # bytes of the largest attention matrix


def _draw(job: Job, config: Mapping[str, Any]) -> Drawn:
    """Two batches: the first is slow, loads the states, and is counted; the second is timed."""
    generator = make_generator(job.plugin, config)
    counter = Counter()
    samples = iter(generator.sample(range(2 * job.batch), _run(job, lambda *_: None)))
    with counter.counting():
        for _ in range(job.batch):
            next(samples)
    held = resting_mb()
    start = _now()
    for _ in range(job.batch):
        next(samples)
    cost = np.array([_now() - start, *counter.flops()]) / job.batch
    return Drawn(cost, held, float(counter.largest))


class Counter:
    """FLOPs of a stretch of work, and bytes of the matrices that softmax makes in it."""

    def __init__(self) -> None:
        self.by_operator = FlopCounterMode(display=False)
        self.saved = self.largest = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        with self.by_operator, _Softmax(self):
            yield

    def flops(self) -> tuple[float, float]:
        """Of operators whose work grows with their output, and of products of two batches of
        matrices, which only attention makes."""
        counts = self.by_operator.get_flop_counts().get("Global", {})
        attention = [n for op, n in counts.items() if "bmm" in str(op) or "attention" in str(op)]
        return float(sum(counts.values()) - sum(attention)), float(sum(attention))


class _Softmax(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what softmax returns: in training, autograd holds all of it until the backward."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten._softmax:
            size = output.numel() * output.element_size()
            self.counter.saved += size
            self.counter.largest = max(self.counter.largest, size)
        return output


@contextmanager
def trained_parameters() -> Iterator[dict[int, int]]:
    """Parameters by tensor, of every optimiser that takes a step in the body."""
    found: dict[int, int] = {}

    def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            found.update((id(p), p.numel()) for p in group["params"])

    handle = register_optimizer_step_post_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def random_volumes(folder: Path, job: Job) -> VolumeSet:
    """As many cases of noise as a batch holds; every label is in each of them."""
    values = np.array(sorted({0, *job.label_names}), dtype=np.uint8)
    names = {0: "background", **job.label_names}
    with VolumeSetWriter(folder, job.grid, names) as writer:
        for i in range(job.batch):
            rng = np.random.default_rng(i)
            image = rng.random(job.grid, dtype=np.float32)
            writer.append(f"noise-{i}", image, rng.choice(values, job.grid))
    return VolumeSet.open(folder)


def count_parameters(state: Mapping[str, Any]) -> dict[str, int]:
    """Numbers in the floating-point tensors of each entry of a state; entries without are left
    out."""
    counts = {
        name: sum(t.numel() for _, t in _tensors(value) if t.is_floating_point())
        for name, value in state.items()
    }
    return {name: count for name, count in counts.items() if count}


def shapes(state: Mapping[str, Any]) -> str:
    """Equal for states whose tensors have equal names and shapes: they fit the same networks."""
    listed = sorted((name, tuple(tensor.shape)) for name, tensor in _tensors(state))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{name}/{i}")


def _run(job: Job, progress: Any) -> Run:
    return Run(
        seed=0,
        folder=job.folder,
        grid=job.grid,
        label_names={0: "background", **job.label_names},
        device_setting=job.device,
        states=job.states,
        progress=progress,
    )


def _on_gpu() -> bool:
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return started


def _now() -> float:
    if _on_gpu():
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_mb(memory: PeakMemory) -> float:
    if _on_gpu():
        return torch.cuda.max_memory_allocated() / _MB
    return memory.peak_mb


def resting_mb() -> float:
    """What this process holds now, on a GPU in its allocator."""
    if _on_gpu():
        return torch.cuda.memory_allocated() / _MB
    return float(psutil.Process().memory_info().rss / _MB)


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    temporary.rename(path)

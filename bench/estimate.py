"""What a configuration's generators and segmenters cost here, from a few true steps of each.

Every stage is measured at the preset's own grid where that fits in memory and time, and otherwise
at smaller ones, from which the full grid is extrapolated by the law `bench.scaling.LAW`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.few_steps import brief, changed, largest_batch, parts, with_batch
from bench.generator import Generator, Stage
from bench.registry import GENERATORS, SEGMENTERS
from bench.scaling import Grid, Limits, Work, batched, climb, extrapolate, ladder, shown, volume

if TYPE_CHECKING:
    from bench.config import RunConfig

MEMORY_SHARE = 0.8  # of what is free: the rest is for what was not measured
SAMPLING = "sampling"


@dataclass(frozen=True)
class Row:
    """One stage of a generator, or its sampling, as it was measured and at the full grid."""

    generator: str  # or segmenter
    part: str  # name of the stage, SAMPLING or SEGMENTING
    parameters: Mapping[str, int] = field(default_factory=dict)  # by entry of the stage's state
    trained: int = 0  # parameters that an optimiser moves, discriminators too
    steps: int = 0  # of the fit; 0 for sampling
    batch: int = 0
    measured_batch: int = 0  # 1 where memory or time did not allow a whole one
    measured: tuple[Work, ...] = ()  # by size of the grid
    seconds: float = float("nan")  # a step, or a sampled volume, at the full grid
    memory_mb: float = float("nan")  # at the full grid
    state_mb: float = 0.0  # of what the fit leaves on the disk, at the largest grid measured
    extrapolated: bool = False
    reason: str = ""  # why a larger grid, or any, was not measured
    shared: str = ""  # generator that pays for the stage

    @property
    def hours(self) -> float:
        """Of the stage's fit; nan for sampling."""
        return self.seconds * self.steps / 3600 if self.steps else float("nan")


def estimate(
    config: RunConfig,
    label_names: Mapping[int, str],
    limits: Limits,
    plugins: Sequence[Path] = (),
    told: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """A row for every stage of every generator of `config`, for its sampling, for every segmenter.

    Args:
        config: generators, segmenters and grid.
        label_names: of the data set; its volumes are not read.
        limits: of one measurement.
        plugins: files that a measuring process must load first.
        told: is called with a line before each measurement.
    """
    known: dict[str, Row] = {}  # by what determines a stage
    states: dict[str, dict[Grid, Path]] = {}
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-estimate-") as folder:
        for name, values in config.generators.items():
            probes = Probes(name, config, label_names, limits, tuple(plugins), Path(folder), told)
            rows += list(_rows(probes, values, known, states))
        for name, values in config.segmenters.items():
            training = config.segmentation.training
            segmenter = SegmenterProbes(
                name, config, label_names, limits, tuple(plugins), Path(folder), told
            )
            rows.append(segmenter.fit(values, training.steps, training.batch_size))
    return rows


def _rows(
    probes: Probes,
    values: Mapping[str, Any],
    known: dict[str, Row],
    states: dict[str, dict[Grid, Path]],
) -> Iterator[Row]:
    generator = probes.generator(values)
    keys: dict[str, str] = {}
    for stage in generator.stages():
        keys[stage.name] = key = _key(stage, keys)
        if key in known:  # by the rule of the plan: equal stages of two generators train once
            yield replace(known[key], generator=probes.name, shared=known[key].generator)
            continue
        needs = {need: states[keys[need]] for need in stage.needs}
        row, states[key] = probes.stage(stage, values, needs)
        known[key] = row
        yield row
    yield probes.sampling(values, {name: states[key] for name, key in keys.items()})


def _key(stage: Stage, keys: Mapping[str, str]) -> str:
    needs = [keys[name] for name in stage.needs]
    return json.dumps([stage.name, stage.version, stage.config.model_dump(mode="json"), needs])


@dataclass(frozen=True)
class Probes:
    """The measurements of one generator."""

    name: str
    run: RunConfig
    label_names: Mapping[int, str]
    limits: Limits
    plugins: tuple[Path, ...]
    folder: Path
    told: Callable[[str], None]

    def generator(self, values: Mapping[str, Any]) -> Generator:
        plugin = GENERATORS.get(self.name)
        generator: Generator = plugin(plugin.Config.model_validate(values))
        return generator

    def stage(
        self, stage: Stage, values: Mapping[str, Any], needs: Mapping[str, Mapping[Grid, Path]]
    ) -> tuple[Row, dict[Grid, Path]]:
        """The row of a stage, and its states by grid; of one that fits every grid, the first."""
        from bench.probe import STEPS

        training = parts(stage.config.model_dump(mode="json"), "training")
        short = brief(values, STEPS)
        found: dict[str, Any] = {}
        states: dict[Grid, Path] = {}

        def attempt(grid: Grid, batch: int) -> Work | str:
            config = with_batch(short, "training", batch)
            work, state, folder = self._attempt(grid, stage.name, config, batch, needs)
            if state and state["shapes"] != found.get("shapes"):
                found.update(state)
                states[grid] = folder / "state.pt"
            elif state:
                (folder / "state.pt").unlink()
            return work

        steps = sum(int(part["steps"]) for part in training.values())
        row = Row(self.name, stage.name, steps=steps, batch=largest_batch(training))
        row = self._climbed(row, needs, attempt)
        return replace(row, **_facts(found)), states

    def sampling(self, values: Mapping[str, Any], needs: Mapping[str, Mapping[Grid, Path]]) -> Row:
        """Seconds of a volume with all its denoising steps."""
        from bench.probe import SAMPLING_STEPS, STEPS

        first, more = SAMPLING_STEPS
        base = brief(values, STEPS)
        samplers = parts(values, SAMPLING)
        for path in samplers:
            base = changed(base, path, "steps", first)

        def attempt(grid: Grid, batch: int) -> Work | str:
            config = with_batch(base, SAMPLING, batch)
            longer = {
                path: {"steps": int(s["steps"]), "config": changed(config, path, "steps", more)}
                for path, s in samplers.items()
            }
            return self._attempt(grid, "", config, batch, needs, longer)[0]

        row = Row(self.name, SAMPLING, batch=largest_batch(samplers))
        return self._climbed(row, needs, attempt)

    def _climbed(
        self,
        row: Row,
        needs: Mapping[str, Mapping[Grid, Path]],
        attempt: Callable[[Grid, int], Work | str],
    ) -> Row:
        """The row with what was measured, with one volume where no grid takes a whole batch."""
        if time.monotonic() > self.limits.until:
            return replace(row, reason="no time was left to measure it")
        missing = [name for name, by_grid in needs.items() if not by_grid]
        if missing:
            return replace(row, reason=f"needs {', '.join(missing)}, which was not measured")
        full, grids = self.run.data.grid, self._ladder()
        works, reason = climb(grids, lambda grid: attempt(grid, row.batch), self.limits)
        whole = bool(works) or row.batch == 1
        if not whole:
            works, why = climb(grids, lambda grid: attempt(grid, 1), self.limits)
            works = [batched(work, row.batch, row.part == SAMPLING) for work in works]
            reason = f"a batch of {row.batch} at {reason}; of 1: {why or 'measured'}"
        if not works:
            return replace(row, reason=reason)
        seconds, memory_mb = extrapolate(works, volume(full))
        return replace(
            row,
            measured=tuple(works),
            measured_batch=row.batch if whole else 1,
            seconds=seconds,
            memory_mb=memory_mb,
            extrapolated=works[-1].grid != full or not whole,
            reason=reason,
        )

    def _ladder(self) -> list[Grid]:
        """The full grid and those smaller ones that the plug-in takes."""
        taken = []
        for grid in ladder(self.run.data.grid):
            try:
                self._check(grid)
            except InputError:
                continue
            taken.append(grid)
        if not taken:
            self._check(self.run.data.grid)  # its own words
        return taken

    def _check(self, grid: Grid) -> None:
        """InputError if the plug-in cannot take the grid."""
        self.generator(self.run.generators[self.name]).check(grid, self.label_names)

    def _attempt(
        self,
        grid: Grid,
        stage: str,
        config: Mapping[str, Any],
        batch: int,
        needs: Mapping[str, Mapping[Grid, Path]],
        sampling: Mapping[str, Any] | None = None,
    ) -> tuple[Work | str, dict[str, Any], Path]:
        """What was measured, or why not; what is known of the state; the folder it lies in."""
        from bench.probe import Job
        from bench.probe_process import measured

        self.told(f"{self.name}: {stage or SAMPLING} at {shown(grid)}")
        states = {n: g.get(grid) or next(iter(g.values())) for n, g in needs.items()}
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        job = Job(
            plugin=self.name,
            config=config,
            stage=stage,
            grid=grid,
            label_names=self.label_names,
            batch=batch,
            folder=folder,
            device=self.run.device,
            memory_mb=self.limits.memory_mb,
            states=states,
            sampling=sampling or {},
            plugins=self.plugins,
        )
        work, state = measured(job, self.limits)
        shutil.rmtree(folder / "train", ignore_errors=True)
        shutil.rmtree(folder / "resume", ignore_errors=True)
        return work, state, folder


@dataclass(frozen=True)
class SegmenterProbes(Probes):
    """The measurements of one segmenter."""

    def fit(self, values: Mapping[str, Any], steps: int, batch: int) -> Row:
        """The row of one fit, whatever its task and arm."""
        from bench.probe import SEGMENTING

        found: dict[str, Any] = {}

        def attempt(grid: Grid, batch: int) -> Work | str:
            work, state, folder = self._attempt(grid, SEGMENTING, values, batch, {})
            found.update(state)
            shutil.rmtree(folder)
            return work

        row = self._climbed(Row(self.name, SEGMENTING, steps=steps, batch=batch), {}, attempt)
        return replace(row, **_facts(found))

    def _check(self, grid: Grid) -> None:
        import torch

        segmenter = SEGMENTERS.get(self.name)
        config = segmenter.Config.model_validate(self.run.segmenters[self.name])
        with torch.device("meta"):
            segmenter.build(1, len({0, *self.label_names}), grid, config)


def _facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of a state, for a row."""
    return {
        "parameters": found.get("parameters", {}),
        "trained": found.get("trained", 0),
        "state_mb": found.get("state_mb", 0.0),
    }


def default_limits(config: RunConfig, seconds: float, memory_gib: float | None) -> Limits:
    """So many seconds, and what is given or 80 % of what is free on the run's device."""
    import psutil
    import torch

    gpu = config.device.torch_device().startswith("cuda")
    free = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    memory_mb = memory_gib * 1024 if memory_gib else MEMORY_SHARE * free / 2**20
    return Limits(seconds, memory_mb, gpu)

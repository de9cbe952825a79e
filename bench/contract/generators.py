"""The contract of a generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from bench.cells.fit import make_generator
from bench.contract.config import (
    check_described,
    check_frozen,
    check_identity,
    check_round_trip,
)
from bench.contract.fits import (
    Job,
    compare_states,
    fit,
    fit_and_sample,
    fit_with_a_stop,
    sample,
    stir,
)
from bench.contract.process import changes, elsewhere, files_opened, process_state, restore
from bench.contract.requirement import Broken, NotChecked, Requirements
from bench.contract.samples import (
    check_count,
    check_images,
    check_labels,
    check_range,
    check_same,
)
from bench.contract.small import GRID, LARGER, OTHER, Sets, small_config, small_sets
from bench.errors import InputError
from bench.generator import Generator
from bench.harness import check_stages
from bench.registry import GENERATORS
from bench.scaling import Grid, shown
from bench.volumes import Sample, VolumeSet

INDICES = (0, 1, 2)


@dataclass(frozen=True)
class Unlike:
    """What came of a fit that should be equal to the base fit though much about it differs.

    One fit is enough for a plug-in that keeps its contract.
    """

    job: Job
    deaf: Sequence[str]  # stages that went on when they were asked to stop
    equal: bool


@dataclass
class GeneratorSubject:
    """A generator, what it was fitted on, and what came of it."""

    name: str
    folder: Path
    plugins: Sequence[Path] = ()
    settings: Sequence[str] = ()

    @property
    def plugin(self) -> Any:
        return GENERATORS.get(self.name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """With few steps."""
        return small_config(self.plugin.Config, "generators", self.name, self.settings)

    @cached_property
    def grid(self) -> Grid:
        """The smaller of two that the generator takes."""
        return next((g for g in (GRID, LARGER) if not self.refusal(g)), GRID)

    @cached_property
    def sets(self) -> Sets:
        return small_sets(self.folder, self.grid)

    @property
    def train(self) -> VolumeSet:
        return self.sets.part("train")

    def generator(self) -> Generator:
        return make_generator(self.name, self.config)

    def refusal(self, grid: Grid) -> str:
        """Why the generator does not take a grid, in its own words; "" if it does."""
        from bench.datasets.phantom import LABEL_NAMES

        try:
            self.generator().check(grid, LABEL_NAMES)
        except InputError as error:
            return str(error) or "no reason"
        return ""

    def job(self, place: str, **changes: Any) -> Job:
        own = self.folder / self.name / place
        return Job(self.name, self.config, changes.pop("sets", None) or self.sets, own, **changes)

    @cached_property
    def base(self) -> Job:
        """The fit that all others are compared with."""
        return self.job("base")

    def looked_at(self, work: Callable[[], Any]) -> Any:
        """Do some work of the plug-in; what it changed in the process and opened is noted."""
        before = process_state()
        with files_opened() as opened:
            try:
                return work()
            finally:
                self.changed += changes(before, process_state())
                self.opened |= opened
                restore(before)

    @cached_property
    def changed(self) -> list[str]:
        return []

    @cached_property
    def opened(self) -> set[Path]:
        return set()

    @cached_property
    def steps(self) -> dict[str, int]:
        """Steps that each stage told of; the base fit is done then."""
        job = self.base  # its cases are made before anything is looked at
        steps: dict[str, int] = self.looked_at(lambda: fit(job))
        return steps

    @cached_property
    def unlike(self) -> Unlike:
        """A fit with everything in which fits may not differ: stirred random states, other
        validation cases, and stops."""
        job = self.job("unlike", validation="other")
        deaf: list[str] = []
        stir()
        try:
            deaf = fit_with_a_stop(job)
            compare_states(self.base, job, "")
        except (Exception, SystemExit):  # any may come; fits with one difference each find it
            return Unlike(job, deaf, equal=False)
        return Unlike(job, deaf, equal=True)

    @cached_property
    def samples(self) -> list[Sample]:
        """The first volumes of the base fit."""
        samples: list[Sample] = self.looked_at(lambda: sample(self.base, INDICES))
        return samples


GENERATOR: Requirements[GeneratorSubject] = Requirements()
require = GENERATOR.add


@require(
    "identity",
    "a version as text, and a docstring whose first line bench list shows",
    'write version = "1" in the class and a docstring under its name',
)
def identity(subject: GeneratorSubject) -> None:
    check_identity(GENERATORS, subject.name)


@require(
    "config",
    "Config is a frozen pydantic model, and so are its parts; unknown keys are refused",
    "derive Config from bench.GeneratorConfig and its parts from bench.generator.Frozen",
    "Config",
)
def config(subject: GeneratorSubject) -> None:
    check_frozen(subject.plugin.Config)


@require(
    "config described",
    "every field of Config has a default and a description",
    'write components: int = Field(16, description="what it does")',
    "Config",
    needs=["config"],
)
def config_described(subject: GeneratorSubject) -> None:
    check_described(subject.plugin.Config)


@require(
    "config stored",
    "the defaults written as JSON give the same configuration again",
    "use numbers, texts, tuples and nested models as fields, and validators that take their own "
    "output",
    "Config",
    needs=["config"],
)
def config_stored(subject: GeneratorSubject) -> None:
    check_round_trip(subject.plugin.Config)


@require(
    "label source",
    'labels is "native", "joint" or "none"',
    'set labels = "none" if the model draws images alone, "joint" if image and label together, '
    '"native" if the label comes first',
    needs=["config stored"],
)
def label_source(subject: GeneratorSubject) -> None:
    known = get_args(get_args(get_type_hints(Generator)["labels"])[0])
    labels = subject.generator().labels  # of an instance: it may follow from the configuration
    if labels not in known:
        raise Broken(f"labels is {labels!r}")


@require(
    "check",
    f"check() takes the grid {shown(GRID)} or {shown(LARGER)}, and refuses others by InputError",
    "raise bench.InputError in check() for grids and labels that the model cannot take, nothing "
    "else, and nothing for others",
    "check",
    needs=["config stored"],
)
def check(subject: GeneratorSubject) -> None:
    reason = subject.refusal(GRID)
    if reason and subject.refusal(LARGER):
        raise Broken(f"both are refused: {reason}")
    for odd in ((33, 35, 37), (16, 8, 4)):
        subject.refusal(odd)  # anything but an InputError ends here


@require(
    "stages",
    "stages have names of their own, a frozen Config, and need earlier stages only",
    "return the same stages each time: Stage(name, config, fit, needs=(name of an earlier one,))",
    "stages",
    needs=["check"],
)
def stages(subject: GeneratorSubject) -> None:
    found, again = subject.generator().stages(), subject.generator().stages()
    names = [stage.name for stage in found]
    if not names or len(set(names)) != len(names):
        raise Broken(f"the stages are named {names}")
    if [(s.name, s.version, s.config, s.needs) for s in again] != [
        (s.name, s.version, s.config, s.needs) for s in found
    ]:
        raise Broken("two instances of one configuration have other stages")
    for stage in found:
        check_frozen(type(stage.config))
    try:
        check_stages(subject.generator())
    except InputError as error:
        raise Broken(str(error)) from error


@require(
    "fit",
    "fit learns from a few tiny phantoms and returns a dict of tensors, numbers and text that "
    "torch.save and torch.load(weights_only=True) take",
    "return what sample needs as nested dicts of tensors, numbers and text, such as state dicts",
    "fit",
    needs=["stages"],
)
def fits(subject: GeneratorSubject) -> None:
    assert subject.steps is not None


@require(
    "own data only",
    "fit opens no file of the test or held-out cases and writes into no prepared data",
    "learn from the volume set train that fit is given, and write into run.folder alone",
    "fit",
    needs=["fit"],
)
def own_data_only(subject: GeneratorSubject) -> None:
    for part in ("test", "held"):
        foreign = [p for p in subject.opened if p.is_relative_to(subject.sets.folder / part)]
        if foreign and not (part == "held" and subject.plugin.needs_held):
            raise Broken(f"{foreign[0].name} of the {part} cases was opened")
    for part in ("train", "val"):
        try:
            subject.sets.part(part).verify()
        except (ValueError, OSError) as error:
            raise Broken(f"the {part} cases are not as they were: {error}") from error


@require(
    "samples",
    "sample yields one bench.Sample for each index, in order",
    "loop over indices and yield Sample(image, label) once for each",
    "sample",
    needs=["fit"],
)
def samples(subject: GeneratorSubject) -> None:
    check_count(subject.samples, len(INDICES))


@require(
    "images",
    "images are NumPy arrays (D, H, W) of the run's grid, of a floating-point type",
    "reshape to run.grid, and give image.cpu().numpy()",
    "sample",
    needs=["samples"],
)
def images(subject: GeneratorSubject) -> None:
    check_images(subject.samples, subject.grid)


@require(
    "range",
    "images are finite and lie in [0, 1]",
    "clamp(0, 1) what is drawn, and look for what makes NaN",
    "sample",
    needs=["images"],
)
def value_range(subject: GeneratorSubject) -> None:
    check_range(subject.samples)


@require(
    "labels",
    "each volume has a label (D, H, W) of uint8 with ids of run.label_names, or none where labels "
    'is "none"',
    "set labels to what sample gives, and give labels as uint8 with the ids of run.label_names",
    "sample",
    needs=["samples"],
)
def labels(subject: GeneratorSubject) -> None:
    source = subject.generator().labels
    check_labels(subject.samples, source, subject.grid, subject.train.label_names)


@require(
    "index",
    "volume i depends on the seed and i alone: not on the others asked for, nor on their order",
    "draw the noise of volume i from run.noise(i, shape), keep nothing from one volume to the "
    "next, and put networks into eval()",
    "sample",
    needs=["images", "labels"],
)
def index(subject: GeneratorSubject) -> None:
    stir()
    for asked in ([2], [2, 0]):
        drawn = sample(subject.base, asked)
        check_count(drawn, len(asked))
        for i, again in zip(asked, drawn, strict=True):
            what = f"volume {i} of {list(INDICES)} and the same of {asked}"
            check_same(subject.samples[i], again, what)


@require(
    "seed",
    "another index and another seed give another volume",
    "draw noise from run.noise(i, shape), which depends on both",
    "sample",
    needs=["images"],
)
def seed(subject: GeneratorSubject) -> None:
    if subject.plugin.control:
        raise NotChecked("a control may draw one volume again and again")
    first, second, _ = subject.samples
    if np.array_equal(first.image, second.image):
        raise Broken("volumes 0 and 1 are equal")
    other = sample(subject.base, INDICES[:1], seed=1)
    if np.array_equal(first.image, other[0].image):
        raise Broken("volume 0 of seed 0 and of seed 1 are equal")


@require(
    "process state",
    "fit and sample leave what belongs to the whole process as it was",
    "change settings of torch or NumPy within a with block that puts them back",
    "fit",
    needs=["samples"],
)
def process_left_alone(subject: GeneratorSubject) -> None:
    if subject.changed:
        raise Broken("; ".join(dict.fromkeys(subject.changed)))


@require(
    "deterministic",
    "the same data, configuration and seed give the same state, bit for bit",
    "draw from torch's, NumPy's or random's global state, which are set before a fit and before "
    "each step of bench.train, or from a generator seeded with run.seed",
    "fit",
    needs=["fit"],
)
def deterministic(subject: GeneratorSubject) -> None:
    if not subject.unlike.equal:
        stir()
        again = subject.job("again")
        fit(again)
        compare_states(subject.base, again, "two fits")


@require(
    "validation",
    "the state does not depend on the validation cases, beyond the choice of the best networks",
    "learn from train alone; to choose networks by validation use keep: best of bench.train, "
    "which is off in this check",
    "fit",
    needs=["deterministic"],
)
def validation(subject: GeneratorSubject) -> None:
    if not subject.unlike.equal:
        other = subject.job("other-validation", validation="other")
        fit(other)
        compare_states(subject.base, other, "with other validation cases")


@require(
    "resume",
    "a fit that is stopped and begun again ends with the state of one that was not, bit for bit",
    "train by bench.train with networks and optimisers given to it; in a loop of your own look at "
    "run.stop_requested() after each step, save all to run.folder and raise bench.errors."
    "Interrupted",
    "fit",
    needs=["deterministic"],
)
def resume(subject: GeneratorSubject) -> None:
    told = [stage for stage, steps in subject.steps.items() if steps]
    if not told:
        raise NotChecked("the fit tells of no steps: it is taken to be short and begins anew")
    stopped, deaf = subject.unlike.job, subject.unlike.deaf
    if not subject.unlike.equal:
        stopped = subject.job("stopped")
        deaf = fit_with_a_stop(stopped)
    if deaf:
        raise Broken(f"{', '.join(deaf)} went on when it was asked to stop")
    compare_states(subject.base, stopped, "stopped and begun again")


@require(
    "another process",
    "a worker that knows only the plug-in's name, file and configuration fits the same state and "
    "draws the same volumes",
    "keep nothing outside what fit returns: no attribute of self, no global, no file elsewhere",
    needs=["deterministic", "index"],
)
def another_process(subject: GeneratorSubject) -> None:
    there, path = subject.job("elsewhere"), subject.folder / subject.name / "elsewhere.npz"
    elsewhere(subject.plugins, fit_and_sample, there, INDICES, path)
    compare_states(subject.base, there, "in another process")
    with np.load(path, allow_pickle=False) as drawn:
        labels = drawn["labels"] if "labels" in drawn.files else [None] * len(INDICES)
        for i, pair in enumerate(zip(drawn["images"], labels, strict=True)):
            check_same(subject.samples[i], Sample(*pair), f"volume {i} in another process")


@require(
    "other grid",
    f"a grid of unequal sides, {shown(OTHER)}, is refused by check() or learnt and drawn",
    "raise bench.InputError in check() for what the model cannot take, and take shapes from "
    "run.grid",
    "check",
    needs=["images"],
)
def other_grid(subject: GeneratorSubject) -> None:
    if subject.refusal(OTHER):
        return
    job = subject.job("other-grid", sets=small_sets(subject.folder, OTHER))
    fit(job)
    drawn = sample(job, INDICES[:1])
    check_count(drawn, 1)
    check_images(drawn, OTHER)
    check_range(drawn)

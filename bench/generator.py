"""What a generator is: the contract of a plug-in, and its registration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from bench.registry import GENERATORS

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import Sample, VolumeSet


class Frozen(BaseModel):
    """A configuration: unknown keys are refused, values do not change once made.

    A part that is given in part keeps the rest of its default: ``training: {steps: 5}`` changes
    the steps and leaves the learning rate that this model's default has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _complete_parts(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        completed = dict(values)
        for name, field in cls.model_fields.items():
            given = values.get(name)
            if isinstance(field.default, BaseModel) and isinstance(given, Mapping):
                completed[name] = _merge(field.default.model_dump(exclude_defaults=True), given)
        return completed


def _merge(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**default, **given}
    for name, value in given.items():
        if isinstance(value, Mapping) and isinstance(default.get(name), Mapping):
            merged[name] = _merge(default[name], value)
    return merged


class GeneratorConfig(Frozen):
    """Configuration of a generator; give every field a default and a description."""


State = Mapping[str, Any]  # nested mappings of tensors, numbers and text; saved with torch.save


@dataclass(frozen=True)
class Stage:
    """One named part of a fit, kept and keyed on its own.

    Two generators whose stages have equal name, version, configuration and needs train it once on
    the same data. `fit(train, val, run)` returns the state to keep; later stages and `sample` find
    it by `run.state(name)`.
    """

    name: str
    config: BaseModel
    fit: Callable[[VolumeSet, VolumeSet, Run], State]
    needs: tuple[str, ...] = ()
    version: str = "1"


class Generator(ABC):
    """A generative model of labelled or unlabelled 3D volumes.

    Write `fit` and `sample`, or several `stages` and `sample`. An instance holds its configuration
    and nothing that was learnt: what `fit` returns is saved, and `sample` reads it with
    `run.state()`, possibly in another process.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    Config: ClassVar[type[GeneratorConfig]] = GeneratorConfig
    labels: ClassVar[Literal["native", "joint", "none"]] = "none"
    """Where a sample's label comes from: the model draws it first or gives it with the image
    ("native", "joint"), or has none and the harness labels the image with a segmenter."""
    needs_held: ClassVar[bool] = False
    """Whether `sample` draws from real cases held out for it, `run.sets["held"]`. Where the data
    are not the phantom, asking for such a generator takes them out of the training split."""
    control: ClassVar[bool] = False  # set by register_generator

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, grid: tuple[int, int, int], label_names: Mapping[int, str]) -> None:  # noqa: B027
        """Raise InputError, before any training, if the model cannot take grid or labels."""

    def fit(self, train: VolumeSet, val: VolumeSet, run: Run) -> State:
        """Learn from `train`, watch `val`, return the state that `sample` needs."""
        raise TypeError(f"Generator {self.name} has neither fit nor stages; write one of them.")

    def stages(self) -> Sequence[Stage]:
        """The parts of the fit, in order; a single stage named "fit" by default."""
        return (Stage(f"{self.name}/fit", self.config, self.fit, version=self.version),)

    @abstractmethod
    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        """Yield one Sample per index, in order: image (D, H, W) in [0, 1] and, unless `labels` is
        "none", label (D, H, W) uint8. Volume i depends on the run's seed and i alone: draw its
        noise from `run.noise(i, shape)`."""


G = TypeVar("G", bound=type[Generator])


def register_generator(name: str, *, control: bool = False) -> Callable[[G], G]:
    """Class decorator: make the generator known under `name`.

    A control is a generator whose quality is known, made to test the benchmark and not to compete
    in it: "controls" or its name chooses it, "all" does not. Its entry point, if it has one, is in
    the group bench.controls instead of bench.generators.
    """

    def register(cls: G) -> G:
        cls.name = name
        cls.control = control
        GENERATORS.register(name, cls)
        return cls

    return register

"""The configuration of a run: pydantic models, presets, and overrides.

Layers, later ones win: defaults of the models, the preset's YAML, the data argument, ``--set`` and
the command's options. The resolved configuration is stored with the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from bench.datasets.config import HOLDOUT, PHANTOM, DataConfig
from bench.device import Device
from bench.errors import InputError, nearest
from bench.generator import Frozen
from bench.presets import read_preset
from bench.registry import EXTRACTORS, GENERATORS, SEGMENTERS
from bench.training_config import TrainingConfig

M = TypeVar("M", bound=BaseModel)

SEGMENTER_TRAINING = TrainingConfig(
    steps=10_000, betas=(0.95, 0.999), learning_rate=1e-3, validate_every=250, keep="best"
)


class SegmentationConfig(Frozen):
    """How every segmenter learns; R and R+S take the same number of optimiser steps."""

    training: TrainingConfig = Field(
        SEGMENTER_TRAINING,
        description="Adam; its first momentum is the paper's 0.95",
    )
    equal: Literal["steps", "epochs"] = Field(
        "steps",
        description="what R and R+S have in common: optimiser steps, or epochs over their volumes",
    )
    keep_weights: bool = Field(False, description="keep the segmenters' weights with their cells")
    tolerance_mm: float = Field(
        3.0, gt=0, description="surfaces this near count as equal in the surface Dice, in mm"
    )


class LabellerConfig(Frozen):
    """The segmenter that labels the volumes of generators that have no labels."""

    segmenter: str = Field(
        "unet", description="name of the segmenter, trained on the training split alone"
    )
    config: dict[str, Any] = Field({}, description="configuration of its network")
    training: TrainingConfig = Field(
        SEGMENTER_TRAINING,
        description="as for a segmenter in arm R",
    )


class ScoringConfig(Frozen):
    """How volumes are turned into features and compared."""

    extractor: str = Field(
        "auto",
        description="a name of bench list extractors; auto is medicalnet where its weights are "
        "found before the run, else texture",
    )
    weights: Path | None = Field(
        None, description="the extractor's weights, for medicalnet resnet_50_23dataset.pth"
    )
    preprocess: str = Field(
        "",
        description="what the extractor is fed, one of the names that bench list EXTRACTOR gives; "
        "projects disagree on it. Empty: its first",
    )
    protocol: Literal["", "reorient", "2.5d"] = Field(
        "",
        description="reorient: the plane's normal becomes the first axis, a 3D network sees the "
        "volume; 2.5d: a 2D network sees the plane's slices. Empty: the extractor's own",
    )
    synthetic: int = Field(
        0, ge=0, description="synthetic volumes for the FID; 0 is as many as test volumes"
    )
    resamples: int = Field(
        200,
        ge=0,
        description="resamples of the volumes for intervals and ranks; 0 gives none. By slices "
        "(2.5d) one takes as long as the FID itself",
    )
    neighbours: int = Field(
        5, ge=1, description="k of the nearest neighbours in precision, recall, density, coverage"
    )
    diversity_pairs: int = Field(
        64, ge=1, description="pairs of volumes, at most, of the MS-SSIM within a set"
    )
    task_features: bool = Field(
        True, description="score on features of the R-trained labeller too: they see anatomy"
    )

    @field_validator("resamples")
    @classmethod
    def _several(cls, count: int) -> int:
        if count == 1:
            raise ValueError("one resample has no spread, give 0 or at least 2")
        return count

    @field_validator("extractor")
    @classmethod
    def _known(cls, name: str) -> str:
        known = ["auto", *EXTRACTORS.names()]
        if name not in known:
            raise ValueError(f"there is no extractor {name!r}: {nearest(name, known)}")
        return name


class RunConfig(Frozen):
    """Everything that determines a run's numbers, and where it computes."""

    preset: str = Field("quick", description="the preset that the values started from")
    description: str = Field("", description="what the preset is for")
    data: DataConfig = Field(DataConfig(), description="data set, grid, split")
    generators: dict[str, dict[str, Any]] = Field(
        {}, description="configuration of each generator, by name"
    )
    segmenters: dict[str, dict[str, Any]] = Field(
        {}, description="configuration of each segmenter, by name"
    )
    tasks: tuple[str, ...] = Field((), description="tasks to run; all of the data set's if empty")
    real: tuple[int | Literal["all"], ...] = Field(("all",), description="real training cases used")
    ratio: tuple[float, ...] = Field((1.0,), description="synthetic volumes per real training case")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="one full run of every fit per seed"
    )
    segmentation: SegmentationConfig = Field(
        SegmentationConfig(), description="how segmenters learn"
    )
    labeller: LabellerConfig = Field(
        LabellerConfig(), description="labels for image-only generators"
    )
    scoring: ScoringConfig = Field(ScoringConfig(), description="features and FID")
    device: Device = Field(Device(), description="where networks run; not part of any key")
    note: str = Field("", description="a sentence that stands under the tables")


def resolve(
    preset: str,
    data: Mapping[str, Any],
    settings: Sequence[str],
    generators: str,
    segmenters: str,
    options: Mapping[str, Any],
    weights: Path | None = None,
) -> RunConfig:
    """The configuration that a command line asks for, validated before anything is computed."""
    # YAML anchors make several plug-ins share one mapping; --set must change that of one alone.
    values = json.loads(json.dumps(read_preset(preset)))
    order = {kind: list(values.get(kind, {})) for kind in ("generators", "segmenters")}
    values["data"] = {**values.get("data", {}), **data}
    for setting in settings:
        apply_setting(values, setting)
    values |= {k: v for k, v in options.items() if v is not None}
    if weights is not None:
        values["scoring"] = {**values.get("scoring", {}), "weights": weights}
    for kind, registry, asked in (
        ("generators", GENERATORS, generators),
        ("segmenters", SEGMENTERS, segmenters),
    ):
        given = values.get(kind) or {}
        _check_plugins(registry, given, kind)
        chosen = select_names(asked, registry, order[kind])
        values[kind] = {n: plugin_config(registry, n, given.get(n, {}), kind) for n in chosen}
    return hold_out(validate(RunConfig, values, "the configuration"))


def hold_out(config: RunConfig) -> RunConfig:
    """`config` with `data.holdout` set where it is not and a chosen control needs held-out cases.

    The phantom needs none: there, fresh cases are drawn.
    """
    needed = any(GENERATORS.get(name).needs_held for name in config.generators)
    if config.data.holdout is not None or config.data.source == PHANTOM or not needed:
        return config
    data = config.data.model_copy(update={"holdout": HOLDOUT})
    return config.model_copy(update={"data": data})


def _check_plugins(registry: Any, given: Any, kind: str) -> None:
    """InputError unless `given` maps names of known plug-ins to mappings."""
    if not isinstance(given, Mapping):
        raise InputError(
            f"{kind} in the configuration is {given!r}; write --set {kind}.NAME.KEY=VALUE."
        )
    known = [*registry.names(), *registry.control_names()]
    for name, values in given.items():
        if name not in known:
            raise InputError(f"There is no {registry.kind} {name!r} to set: {nearest(name, known)}")
        if not isinstance(values, Mapping):
            raise InputError(
                f"{kind}.{name} in the configuration is {values!r}; write --set "
                f"{kind}.{name}.KEY=VALUE."
            )


def select_names(asked: str, registry: Any, order: Sequence[str]) -> list[str]:
    """The names that "none" or a list such as "a,b", "all" or "controls,a" stand for.

    "all" are all but the controls; it and "controls" keep the preset's order.
    """
    if asked == "none":
        return []
    groups = {"all": registry.names(), "controls": registry.control_names()}
    names: list[str] = []
    for part in filter(None, (part.strip() for part in asked.split(","))):
        if groups.get(part):
            known = groups[part]
            names += [n for n in order if n in known]
            names += [n for n in known if n not in order]
        else:
            registry.get(part)
            names.append(part)
    return list(dict.fromkeys(names))


def plugin_config(registry: Any, name: str, values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The full configuration of one plug-in with its defaults, as plain values."""
    config: type[BaseModel] = registry.get(name).Config
    model = validate(config, values, f"{kind}.{name}")
    return dict(model.model_dump(mode="json"))


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Apply one ``a.b=value`` of ``--set``; the value is read as YAML."""
    path, sign, text = setting.partition("=")
    if not sign or not path:
        raise InputError(
            f"--set takes key=value, but got {setting!r}; write for example data.cases=20."
        )
    *parents, last = _parts(path)
    at = values
    for parent in parents:
        at = at.setdefault(parent, {})
        if not isinstance(at, dict):
            raise InputError(
                f"--set {setting}: {parent!r} has no parts; see bench list NAME for the keys."
            )
    try:
        at[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {setting}: {text!r} is not a YAML value; quote it.") from error


def _parts(path: str) -> list[str]:
    """The keys in ``a.b.c``; the name of a plug-in is one key even if it has a dot: blur-0.5."""
    for kind, registry in (("generators", GENERATORS), ("segmenters", SEGMENTERS)):
        for name in (*registry.names(), *registry.control_names()):
            if "." in name and path.startswith(f"{kind}.{name}."):
                return [kind, name, *path.removeprefix(f"{kind}.{name}.").split(".")]
    return path.split(".")


def validate(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """Build `model`; pydantic's error becomes one sentence with field, value and remedy."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        field = ".".join(path)
        if first["type"] == "extra_forbidden":
            known = list(_fields_at(model, path[:-1]))
            raise InputError(
                f"Unknown key {field!r} in {where}: {nearest(path[-1], known)}"
            ) from error
        value = first.get("input")
        message = first["msg"].removeprefix("Value error, ")
        reason = message[0].lower() + message[1:]
        raise InputError(f"{field} in {where} is {value!r}: {reason}; mend it.") from error


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> dict[str, Any]:
    for part in path:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return {}
        model = inner
    return dict(model.model_fields)

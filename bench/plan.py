"""From a configuration to cells: what is to be computed, what each cell needs, and its key.

Pure: nothing here reads volumes, writes files or knows an engine.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from bench.config import RunConfig
from bench.datasets.tasks import Task
from bench.errors import InputError, nearest
from bench.registry import GENERATORS, SEGMENTERS
from metrics.extractors import TASK_NAME, TASK_PROTOCOL, TASK_VERSION

KEY_VERSION = 2
"""Part of every key: raise it when a cell's meaning changes, and old results are not reused."""


class Tags(NamedTuple):
    """What a cell stands for in the tables; never part of its key."""

    generator: str = ""
    stage: str = ""
    segmenter: str = ""
    task: str = ""
    arm: str = ""
    real: str = ""
    ratio: float = 0.0
    seed: int = 0
    label_source: str = ""


@dataclass(frozen=True)
class Cell:
    """One unit of work: its kind, what determines it, the cells it needs, by role."""

    kind: str
    spec: Mapping[str, Any]
    needs: Mapping[str, str] = field(default_factory=dict)  # role -> key
    tags: Tags = field(default_factory=Tags)
    extra: Mapping[str, Any] = field(default_factory=dict)  # needed to execute, no part of the key

    @cached_property
    def key(self) -> str:
        """sha256 over kind, specification and the keys of what it needs."""
        content = {
            "version": KEY_VERSION,
            "kind": self.kind,
            "spec": self.spec,
            "needs": dict(self.needs),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def title(self) -> str:
        """A person's name for the cell: "segment unet liver-only R+S 3d-lldm"."""
        t = self.tags
        dose = (
            f"{t.real} real x{t.ratio:g}"
            if (t.real or "all") != "all" or t.ratio not in (0, 1)
            else ""
        )
        seed = f"seed {t.seed}" if t.seed else ""
        part = t.stage.removeprefix(f"{t.generator}/")
        if self.kind == "features":
            part = "task" if self.spec["extractor"] == TASK.name else ""
            part = f"{part} {self.spec['part']}".strip() if t.generator == "real" else part
        words = (self.kind, t.segmenter, t.task, t.arm, t.generator, part, dose, seed)
        return " ".join(w for w in words if w)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "spec": dict(self.spec),
            "needs": dict(self.needs),
            "tags": self.tags._asdict(),
            "extra": dict(self.extra),
            "version": KEY_VERSION,  # of the key
            "key": self.key,
            "title": self.title,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cell:
        cell = cls(
            value["kind"], value["spec"], value["needs"], Tags(**value["tags"]), value["extra"]
        )
        # To hash forty thousand cells takes seconds. A key names a folder.
        if value.get("version") == KEY_VERSION and re.fullmatch("[0-9a-f]{64}", value["key"]):
            cell.__dict__["key"] = value["key"]
        return cell


@dataclass(frozen=True)
class DataFacts:
    """What the plan must know of the data before they are prepared."""

    name: str
    fingerprint: str  # of the source's contents
    label_names: Mapping[int, str]
    tasks: tuple[Task, ...]
    n_train: int
    n_val: int
    n_test: int
    n_held: int = 0  # real cases taken out of the training split for controls


@dataclass(frozen=True)
class ExtractorFacts:
    """The extractor, decided before the run starts."""

    name: str
    version: str = "1"
    preprocess: str = ""  # "" where there is no choice
    sha256: str = ""  # of its weights; "" where it needs none
    path: str = ""  # where the weights lie on this machine; not part of a key
    protocol: str = "reorient"  # how a plane is formed
    plugin: str = ""  # its name in the registry, where that is not `name`


TASK = ExtractorFacts(TASK_NAME, TASK_VERSION, protocol=TASK_PROTOCOL)
"""Features of the run's own labelling segmenter, whose weights the cell's key stands for."""


@dataclass(frozen=True)
class Real:
    """Keys of the features of the real volumes, by one extractor."""

    test: str
    train: str  # all of them, in the order of `bench.cells.segment.first_cases`


class Planner:
    """Collects cells in an order in which each stands after what it needs."""

    def __init__(self, config: RunConfig, data: DataFacts, extractor: ExtractorFacts) -> None:
        self.config = config
        self.data = data
        self.extractor = extractor
        self.cells: dict[str, Cell] = {}
        self.real: dict[str, Real] = {}  # by extractor
        self.sets = self._add(
            "prepare",
            {"source": data.fingerprint, "data": _data_spec(config)},
            extra={"data": config.data.model_dump(mode="json")},
        )

    def _add(
        self,
        kind: str,
        spec: Mapping[str, Any],
        needs: Mapping[str, str] | None = None,
        tags: Tags | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        given = json.loads(json.dumps(spec))
        cell = Cell(kind, given, dict(needs or {}), tags or Tags(), extra or {})
        self.cells.setdefault(cell.key, cell)
        return cell.key

    def plan(self) -> list[Cell]:
        """Every cell of the configuration, each once."""
        if self.config.generators:
            self._real_volumes()
        for seed in self.config.seeds:
            for segmenter in self.config.segmenters:
                for task in self._tasks():
                    for used in self.config.real:
                        if used != 0:
                            self._segment(segmenter, task, used, 0.0, seed)
            for generator in self.config.generators:
                self._generator(generator, seed)
        return list(self.cells.values())

    @property
    def _n_score(self) -> int:
        """Synthetic volumes that are scored."""
        return self.config.scoring.synthetic or self.data.n_test

    def _real_volumes(self) -> None:
        """Features of the real volumes, and every score of training volumes against test volumes.

        The scores are the floor: what a generator would get whose volumes are as good as real ones.
        """
        needs = {"data": self.sets}
        tags = Tags(generator="real", label_source="real")
        for extractor in self._extractors():
            test = self._features("test", self.data.n_test, needs, tags, extractor)
            train = self._features("train", self.data.n_train, needs, tags, extractor)
            self.real[extractor.name] = Real(test, train)
            self._score(extractor, train, min(self._n_score, self.data.n_train), tags)
        self._inspect("real", needs, tags, self.config.seeds[0])

    def _extractors(self) -> tuple[ExtractorFacts, ...]:
        """The one decided on for the run, and the task features beside it, never mixed with it."""
        return (self.extractor, TASK) if self.config.scoring.task_features else (self.extractor,)

    def _generator(self, name: str, seed: int) -> None:
        plugin = GENERATORS.get(name)
        generator = plugin(plugin.Config.model_validate(self.config.generators[name]))
        states: dict[str, str] = {}
        for stage in generator.stages():
            spec = {
                "stage": stage.name,
                "version": [stage.version, *GENERATORS.file_version(name)],
                "config": stage.config.model_dump(mode="json"),
                "seed": seed,
            }
            needs = {"data": self.sets} | {f"stage:{s}": states[s] for s in stage.needs}
            # The generator is no part of the key: another one with an equal stage trains it once.
            extra = {"plugin": name, "config": self.config.generators[name]}
            tags = Tags(generator=name, stage=stage.name, seed=seed)
            states[stage.name] = self._add("fit", spec, needs, tags, extra)
        n_train_sets = [
            synthetic_count(r, u, self.data.n_train)
            for u in self.config.real
            for r in self.config.ratio
        ]
        count = max([self._n_score, *(n_train_sets if self.config.segmenters else [])])
        spec = {
            "plugin": name,
            "version": GENERATORS.version(name),
            "config": generator.config.model_dump(mode="json"),
            "count": count,
            "seed": seed,
        }
        source = "pseudo" if generator.labels == "none" else generator.labels
        tags = Tags(generator=name, seed=seed, label_source=source)
        needs = {"data": self.sets} | {f"stage:{s}": k for s, k in states.items()}
        self._synthetic(self._add("sample", spec, needs, tags), tags)

    def _synthetic(self, synthetic: str, tags: Tags) -> None:
        """All that is measured of one generator's volumes, and all that learns from them."""
        needs = {"synthetic": synthetic}
        for extractor in self._extractors():
            features = self._features("synthetic", self._n_score, needs, tags, extractor)
            self._score(extractor, features, self._n_score, tags)
            self._memorise(extractor, features, needs, tags)
        if tags.label_source == "pseudo":
            needs["labels"] = self._add(
                "label", {"seed": tags.seed}, needs | {"labeller": self._labeller(tags.seed)}, tags
            )
        self._inspect("synthetic", needs | {"data": self.sets}, tags, tags.seed)
        for segmenter in self.config.segmenters:
            for task in self._tasks():
                for used in self.config.real:
                    for ratio in self.config.ratio:
                        self._segment(segmenter, task, used, ratio, tags.seed, needs, tags)

    def _labeller(self, seed: int) -> str:
        labeller = self.config.labeller
        config = SEGMENTERS.get(labeller.segmenter).Config.model_validate(labeller.config)
        spec = {
            "segmenter": labeller.segmenter,
            "version": SEGMENTERS.version(labeller.segmenter),
            "config": config.model_dump(mode="json"),
            "training": labeller.training.model_dump(mode="json"),
            "seed": seed,
        }
        return self._add(
            "labeller", spec, {"data": self.sets}, Tags(segmenter=labeller.segmenter, seed=seed)
        )

    def _features(
        self, part: str, count: int, needs: Mapping[str, str], tags: Tags, extractor: ExtractorFacts
    ) -> str:
        spec = {
            "part": part,
            "count": count,
            "extractor": extractor.name,
            "plugin": extractor.plugin or extractor.name,  # two may print one name
            "version": extractor.version,
            "preprocess": extractor.preprocess,
            "sha256": extractor.sha256,
            "protocol": extractor.protocol,
        }
        if extractor is TASK:  # the first seed's, so that all seeds are measured alike
            needs = {**needs, "data": self.sets, "labeller": self._labeller(self.config.seeds[0])}
            spec["seed"] = self.config.seeds[0]
        return self._add("features", spec, needs, tags, {"weights": extractor.path})

    def _score(self, extractor: ExtractorFacts, synthetic: str, rows: int, tags: Tags) -> None:
        scoring = self.config.scoring
        spec = {"rows": rows, "resamples": scoring.resamples, "neighbours": scoring.neighbours}
        needs = {"real": self.real[extractor.name].test, "synthetic": synthetic}
        self._add("task-score" if extractor is TASK else "score", spec, needs, tags)

    def _memorise(
        self, extractor: ExtractorFacts, features: str, needs: Mapping[str, str], tags: Tags
    ) -> None:
        real = self.real[extractor.name]
        sets = {"data": self.sets, "train": real.train, "test": real.test}
        kind = "task-memorise" if extractor is TASK else "memorise"
        self._add(kind, {}, {**sets, **needs, "features": features}, tags)

    def _inspect(self, part: str, needs: Mapping[str, str], tags: Tags, seed: int) -> None:
        """What is measured on voxels: diversity, structures, and how labels fit their images."""
        count = self._n_score if part == "synthetic" else self.data.n_test
        spec = {"part": part, "count": count}
        pairs = {"pairs": self.config.scoring.diversity_pairs}
        images = {role: key for role, key in needs.items() if role != "labels"}
        self._add("diversity", {**spec, **pairs}, images, tags)
        self._add("structures", spec, needs, tags)
        if tags.label_source != "pseudo":  # these are what the labeller sees
            labeller = {"labeller": self._labeller(seed)}
            self._add("fidelity", {**spec, "seed": seed}, {**needs, **labeller}, tags)

    def _segment(
        self,
        segmenter: str,
        task: Task,
        used: int | str,
        ratio: float,
        seed: int,
        needs: Mapping[str, str] | None = None,
        synthetic: Tags | None = None,
    ) -> None:
        spec = {
            "segmenter": segmenter,
            "version": SEGMENTERS.version(segmenter),
            "config": self.config.segmenters[segmenter],
            "training": self.config.segmentation.training.model_dump(mode="json"),
            "equal": self.config.segmentation.equal,
            "keep_weights": self.config.segmentation.keep_weights,
            "tolerance_mm": self.config.segmentation.tolerance_mm,
            "task": task.model_dump(mode="json"),
            "real": used,
            "synthetic": synthetic_count(ratio, used, self.data.n_train) if ratio else 0,
            "seed": seed,
        }
        tags = Tags(
            generator=synthetic.generator if synthetic else "",
            segmenter=segmenter,
            task=task.name,
            arm="S" if used == 0 else "R+S" if ratio else "R",
            real=str(used),
            ratio=ratio,
            seed=seed,
            label_source=synthetic.label_source if synthetic else "real",
        )
        self._add("segment", spec, {"data": self.sets, **(needs or {})}, tags)

    def _tasks(self) -> tuple[Task, ...]:
        if not self.config.tasks:
            return self.data.tasks
        known = {task.name: task for task in self.data.tasks}
        return tuple(known[name] for name in self.config.tasks)


def make_plan(config: RunConfig, data: DataFacts, extractor: ExtractorFacts) -> list[Cell]:
    """The cells of a run, each after what it needs; InputError for arms or tasks that cannot be."""
    _check_arms(config, data)
    return Planner(config, data, extractor).plan()


def _check_arms(config: RunConfig, data: DataFacts) -> None:
    names = [task.name for task in data.tasks]
    for task in config.tasks:
        if task not in names:
            raise InputError(f"There is no task {task!r} in {data.name}: {nearest(task, names)}")
    for used in config.real:
        if used != "all" and not 0 <= used <= data.n_train:
            raise InputError(
                f"--real {used} asks for more cases than the {data.n_train} of the training "
                "split of "
                f"{data.name}; give at most that, or all."
            )
    for ratio in config.ratio:
        if not 0 < ratio < math.inf:
            raise InputError(
                f"--ratio {ratio:g} is not a number above 0; arm R is always run without synthetic "
                "volumes."
            )
    _check_doses(config, data)
    if config.generators and config.scoring.synthetic == 1:
        raise InputError("scoring.synthetic is 1, but an FID needs at least 2 volumes; give more.")
    if not config.generators and not config.segmenters:
        raise InputError(
            "Nothing to do: both --generators and --segmenters are none; name at least one."
        )


def _check_doses(config: RunConfig, data: DataFacts) -> None:
    """InputError for arms that could not be told apart, or that have nothing to compare with."""
    if 0 in config.real and "all" not in config.real:
        raise InputError(
            "--real 0 is arm S, which is compared with R of all cases; give --real 0,all."
        )
    for used in config.real:
        counts: dict[int, float] = {}
        for ratio in config.ratio:
            count = synthetic_count(ratio, used, data.n_train)
            if counts.setdefault(count, ratio) != ratio:
                raise InputError(
                    f"--ratio {counts[count]:g} and {ratio:g} both mean {count} synthetic volumes "
                    f"with {used} real cases; give one of them."
                )


def synthetic_count(ratio: float, used: int | str, n_train: int) -> int:
    """`ratio` times the real cases used; times all training cases where none is used."""
    base = n_train if used in ("all", 0) else int(used)
    return math.ceil(round(ratio * base, 6))  # 1.1 * 10 is 11.000000000000002


def _data_spec(config: RunConfig) -> dict[str, Any]:
    """What of the data's configuration changes the volumes; the source is its fingerprint."""
    spec = config.data.model_dump(
        mode="json", exclude={"source", "name", "layout", "links", "tasks", "kinds"}
    )
    if not config.data.holdout:  # unset and 0 are the same volumes
        del spec["holdout"]
    return spec

"""Tasks: which labels a segmenter learns, and under which class names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from bench.datasets.config import DataConfig
from bench.errors import InputError
from bench.generator import Frozen

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Label names of the paper's liver data; its four tasks are defined on them.
_PAPER_LABELS = {"liver", "portal vein", "hepatic vein", "HCC"}
_PAPER_TASKS = {
    "liver-only": {"liver": ["liver", "portal vein", "hepatic vein", "HCC"]},
    "vein-only": {"vein": ["portal vein", "hepatic vein"]},
    "hcc-only": {"HCC": ["HCC"]},
    "multi-class": {
        "portal vein": ["portal vein"],
        "hepatic vein": ["hepatic vein"],
        "HCC": ["HCC"],
    },
}


class Task(Frozen):
    """What a segmenter learns: classes, each the union of some labels of the volume set.

    Class i in the order of `classes` becomes the value i + 1, everything else the background 0.
    """

    name: str = Field(description="letters, digits, dot, dash, underscore; fit for file names")
    classes: dict[str, tuple[int, ...]] = Field(
        min_length=1, max_length=255, description="class name -> label ids of the volume set"
    )

    @field_validator("name")
    @classmethod
    def _fit_for_file_names(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"the task name {name!r} may hold letters, digits, '.', '-' and '_'")
        return name

    @field_validator("classes")
    @classmethod
    def _disjoint(cls, classes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        seen: dict[int, str] = {}
        for name, labels in classes.items():
            if not labels:
                raise ValueError(f"the class {name!r} has no labels")
            for label in labels:
                if not 1 <= label <= 255:
                    raise ValueError(f"label {label} of class {name!r} must lie in 1 to 255")
                if seen.setdefault(label, name) != name:
                    raise ValueError(f"label {label} is in both {seen[label]!r} and {name!r}")
        return classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes, in the order of the values 1, 2, ..."""
        return tuple(self.classes)

    @property
    def out_channels(self) -> int:
        """Channels of a segmenter's softmax: the classes and the background."""
        return len(self.classes) + 1

    def apply(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The task's label map of a volume set's label map, both uint8 of any one shape."""
        table = np.zeros(256, dtype=np.uint8)
        for value, labels in enumerate(self.classes.values(), start=1):
            table[list(labels)] = value
        mapped: NDArray[np.uint8] = table[label]
        return mapped


def tasks_of(config: DataConfig, label_names: Mapping[int, str]) -> dict[str, Task]:
    """The tasks of a data set by name: the configured ones, else `default_tasks`.

    Raises:
        InputError: a configured task names an unknown label, puts one label into two classes, has
            no class, or has a name unfit for file names.
    """
    if config.tasks is None:
        return default_tasks(label_names)
    return {name: _task(name, classes, label_names) for name, classes in config.tasks.items()}


def default_tasks(label_names: Mapping[int, str]) -> dict[str, Task]:
    """Tasks derived from the labels alone.

    Labels named as in the paper (liver, portal vein, hepatic vein, HCC; the phantom's) give its
    tasks: the liver with all inside it, the veins together, the carcinoma, and veins and carcinoma
    apart. Other labels give "foreground" (all of them together) and, where there are several, one
    task for each and "multi-class".
    """
    foreground = {label: name for label, name in label_names.items() if label != 0}
    names = list(foreground.values())
    if set(names) == _PAPER_LABELS:
        return {task: _task(task, classes, label_names) for task, classes in _PAPER_TASKS.items()}
    tasks = {"foreground": Task(name="foreground", classes={"foreground": tuple(foreground)})}
    if len(foreground) > 1:
        for label, name in foreground.items():
            task = f"{_slug(name) or label}-only"
            task = task if task not in tasks else f"{_slug(name)}-{label}-only"
            tasks[task] = Task(name=task, classes={name: (label,)})
        every = {name: (label,) for label, name in foreground.items()}
        tasks["multi-class"] = Task(name="multi-class", classes=every)
    return tasks


def _task(name: str, classes: Mapping[str, Any], label_names: Mapping[int, str]) -> Task:
    ids = {label_name: label for label, label_name in label_names.items() if label != 0}
    unknown = sorted({n for names in classes.values() for n in names} - set(ids))
    if unknown:
        raise InputError(
            f"Task {name!r} uses the labels {unknown}, which the data set does not have; "
            f"its labels are {sorted(ids)}."
        )
    try:
        labels = {key: tuple(ids[n] for n in names) for key, names in classes.items()}
        return Task(name=name, classes=labels)
    except ValueError as error:
        reason = re.sub(r"\s*\[type=.*", "", str(error).splitlines()[-2]).strip()
        raise InputError(f"Task {name!r} is not usable: {reason}; mend data.tasks.") from error


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

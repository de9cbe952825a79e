"""Tasks: which labels a segmenter learns, and under which class names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from bench.datasets.config import DataConfig
from bench.errors import InputError, nearest
from bench.generator import Frozen
from metrics.segmentation import Kind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LESION = re.compile(r"tumou?r|lesion|cancer|carcinoma|metasta|hcc", re.IGNORECASE)
_VESSEL = re.compile(r"vein|vessel|arter(y|ies)|vascula", re.IGNORECASE)
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
    kinds: dict[str, Kind] = Field(
        default={},
        validate_default=True,
        description="class name -> which metrics it is scored by; a class not named is an organ",
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

    @field_validator("kinds")
    @classmethod
    def _one_for_each(cls, kinds: dict[str, Kind], info: ValidationInfo) -> dict[str, Kind]:
        names = list(info.data.get("classes", kinds))
        for name in kinds:
            if name not in names:
                raise ValueError(f"the kind of {name!r} is given, which is not a class")
        return {name: kinds.get(name, "organ") for name in names}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes, in the order of the values 1, 2, ..."""
        return tuple(self.classes)

    @property
    def class_kinds(self) -> tuple[Kind, ...]:
        """The kind of each class, in the order of `class_names`."""
        return tuple(self.kinds[name] for name in self.classes)

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
            no class, or has a name unfit for file names; or `kinds` names an unknown label.
    """
    kinds = config.kinds or {}
    known = [name for label, name in label_names.items() if label != 0]
    for name in kinds:
        if name not in known:
            raise InputError(
                f"data.kinds names the label {name!r}, which the data set does not have: "
                f"{nearest(name, known)}"
            )
    if config.tasks is None:
        return default_tasks(label_names, kinds)
    return {
        name: _task(name, classes, label_names, kinds) for name, classes in config.tasks.items()
    }


def kind_of(name: str) -> Kind:
    """The kind a label's name suggests: "portal vein" a vessel, "HCC" or "tumour" a lesion."""
    if _LESION.search(name):
        return "lesion"
    return "vessel" if _VESSEL.search(name) else "organ"


def default_tasks(
    label_names: Mapping[int, str], kinds: Mapping[str, Kind] | None = None
) -> dict[str, Task]:
    """Tasks derived from the labels alone.

    Labels named as in the paper (liver, portal vein, hepatic vein, HCC; the phantom's) give its
    tasks: the liver with all inside it, the veins together, the carcinoma, and veins and carcinoma
    apart. Other labels give "foreground" (all of them together) and, where there are several, one
    task for each and "multi-class".

    Args:
        label_names: label id -> name; 0 is the background.
        kinds: label name -> kind; those of other labels follow from their names.
    """
    foreground = {label: name for label, name in label_names.items() if label != 0}
    names = list(foreground.values())
    if set(names) == _PAPER_LABELS:
        return {
            task: _task(task, classes, label_names, kinds or {})
            for task, classes in _PAPER_TASKS.items()
        }

    def made(name: str, classes: dict[str, tuple[int, ...]]) -> Task:
        return Task(
            name=name, classes=classes, kinds=_class_kinds(classes, foreground, kinds or {})
        )

    tasks = {"foreground": made("foreground", {"foreground": tuple(foreground)})}
    if len(foreground) > 1:
        for label, name in foreground.items():
            only = f"{_slug(name) or label}-only"
            only = only if only not in tasks else f"{_slug(name)}-{label}-only"
            tasks[only] = made(only, {name: (label,)})
        tasks["multi-class"] = made(
            "multi-class", {name: (label,) for label, name in foreground.items()}
        )
    return tasks


def _task(
    name: str,
    classes: Mapping[str, Any],
    label_names: Mapping[int, str],
    kinds: Mapping[str, Kind],
) -> Task:
    ids = {label_name: label for label, label_name in label_names.items() if label != 0}
    unknown = sorted({n for names in classes.values() for n in names} - set(ids))
    if unknown:
        raise InputError(
            f"Task {name!r} uses the labels {unknown}, which the data set does not have; "
            f"its labels are {sorted(ids)}."
        )
    try:
        labels = {key: tuple(ids[n] for n in names) for key, names in classes.items()}
        return Task(name=name, classes=labels, kinds=_class_kinds(labels, label_names, kinds))
    except ValueError as error:
        reason = re.sub(r"\s*\[type=.*", "", str(error).splitlines()[-2]).strip()
        raise InputError(f"Task {name!r} is not usable: {reason}; mend data.tasks.") from error


def _class_kinds(
    classes: Mapping[str, tuple[int, ...]],
    label_names: Mapping[int, str],
    kinds: Mapping[str, Kind],
) -> dict[str, Kind]:
    """A class is a vessel or a lesion if all of its labels are, and else an organ."""
    result: dict[str, Kind] = {}
    for name, labels in classes.items():
        of_labels = {kinds.get(label_names[i], kind_of(label_names[i])) for i in labels}
        result[name] = of_labels.pop() if len(of_labels) == 1 else "organ"
    return result


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

"""Ready data sets: what they are, how to get them, and how they are read; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from bench import own_yaml
from bench.errors import InputError, nearest
from bench.generator import Frozen

FOLDER = Path(__file__).parent / "sets"


class About(Frozen):
    """What a person wants to know of a data set before getting it."""

    title: str = Field(description="its own name")
    shows: str = Field(description="modality, number of labelled cases, structures")
    licence: str = Field(description="as its publishers state it")
    access: str = Field(description="open, or who must be asked")
    cite: str = Field(description="publication or DOI")
    steps: tuple[str, ...] = Field(description="how to get and unpack it, in order")
    notes: tuple[str, ...] = Field((), description="what to know of its contents")


class Ready(Frozen):
    """A data set's page and the fields of its data configuration, all but the folder."""

    about: About
    data: dict[str, Any]


def ready_names() -> list[str]:
    """Names of the ready data sets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def ready_text(name: str) -> str:
    """The YAML file of a ready data set; InputError with the nearest names if there is none."""
    if name not in ready_names():
        raise InputError(f"There is no ready data set {name!r}: {nearest(name, ready_names())}")
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def read_ready(name: str) -> Ready:
    """A ready data set."""
    return Ready.model_validate(own_yaml.parse(ready_text(name)))

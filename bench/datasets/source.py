"""Sources of labelled volumes: the protocol that preparation reads, and the phantom."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.datasets.config import PHANTOM, PHANTOM_CASES, DataConfig
from bench.datasets.labels import merge_names
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.datasets.folder import FolderSource

# Raised whenever a change makes the phantom of a (seed, index) another one.
PHANTOM_VERSION = 1


@dataclass(frozen=True)
class RawCase:
    """One case as its source has it."""

    image: NDArray[np.float32]  # (X, Y, Z), finite, not constant, any scale
    label: NDArray[np.uint8]  # (X, Y, Z), ids of the source's label names, not all background
    affine: NDArray[np.float64]  # (4, 4): voxel index to RAS+ millimetres, as nibabel
    source: dict[str, Any] = field(default_factory=dict)  # e.g. the file


class Source(Protocol):
    """Where labelled volumes come from."""

    @property
    def name(self) -> str:
        """For people: "phantom" or the data set's own name."""

    @property
    def label_names(self) -> dict[int, str]:
        """Label id -> name; 0 is the background."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Case ids, sorted."""

    @property
    def on_grid(self) -> bool:
        """Whether cases already lie on the configured grid, oriented and scaled to [0, 1]."""

    @property
    def fingerprint(self) -> str:
        """sha256 of all that determines the cases: file contents, or the phantom's parameters."""

    def patient(self, id: str) -> str:
        """Id of the patient whom case `id` shows."""

    def load(self, id: str) -> RawCase:
        """Case `id`, checked; InputError if it is not usable."""


def open_source(config: DataConfig) -> Source:
    """The source that `config` names; InputError if it is missing or broken."""
    return PhantomSource(config) if config.source == PHANTOM else open_folder(config)


def open_folder(config: DataConfig, strict: bool = True) -> FolderSource:
    """The folder that `config` names.

    Without `strict`, cases that the folder lists but does not have are left out, and told in its
    `listing_faults`; InputError is left for what hides the cases altogether.
    """
    from bench.datasets.decathlon import DecathlonSource
    from bench.datasets.layouts import LayoutSource

    if config.layout is None:
        return DecathlonSource(config, strict)
    return LayoutSource(config, config.layout, strict)


def patient_of(id: str, rule: str | None) -> str:
    """The patient's id in a case's id by `DataConfig.patients`; the case's id without a rule."""
    if rule is None:
        return id
    match = re.search(rule, id)
    if match is None or not match.group(1):
        raise InputError(
            f"data.patients {rule!r} finds no patient in the case id {id!r}; mend the expression."
        )
    return str(match.group(1))


class PhantomSource:
    """The built-in phantom, generated directly on the configured grid."""

    name = PHANTOM
    on_grid = True

    def __init__(self, config: DataConfig) -> None:
        from bench.datasets.phantom import LABEL_NAMES

        if config.spacing is not None:
            raise InputError(
                f"data.spacing is {config.spacing}, but the phantom has a fixed field of view that "
                "the grid divides; leave spacing out and set data.grid."
            )
        unknown = set(config.labels or {}) - set(LABEL_NAMES)
        if unknown:
            raise InputError(
                f"data.labels names the ids {sorted(unknown)}, but the phantom's are "
                f"{sorted(LABEL_NAMES)}; leave them out."
            )
        self._config = config
        self.label_names, self._merge = merge_names({**LABEL_NAMES, **(config.labels or {})})
        cases = PHANTOM_CASES if config.cases is None else config.cases
        self._index = {f"phantom-{i:04d}": i for i in range(cases)}
        self.ids = tuple(sorted(self._index))

    @cached_property
    def fingerprint(self) -> str:
        content = [
            PHANTOM,
            PHANTOM_VERSION,
            self._config.seed,
            self._config.grid,
            self.ids,
            sorted(self.label_names.items()),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def patient(self, id: str) -> str:
        return patient_of(id, self._config.patients)

    def load(self, id: str) -> RawCase:
        """Case `id`: image in [0, 1], the grid's centre at the origin of the world."""
        from bench.datasets.phantom import phantom_case

        case = phantom_case(self._index[id], self._config.seed, self._config.grid)
        affine = np.diag([*case.spacing, 1.0])
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(case.image.shape) - 1) / 2)
        return RawCase(case.image, self._merge[case.label], affine)

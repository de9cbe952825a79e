"""Synthetic pairs of a run, for other tools: images with the labels that arm S learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.datasets.write import (
    ToWrite,
    require_new,
    require_nnunet_name,
    write_decathlon,
    write_nnunet,
)
from bench.disk import writing
from bench.errors import InputError
from bench.plan import Cell
from bench.runs import read_run
from bench.sampling import sample_cell, undamaged
from bench.store import Store
from bench.volumes import VolumeSet

Format = Literal["decathlon", "nnunet"]

_LABELS_FROM = {
    "native": "the generator drew the label first and the image for it",
    "joint": "the generator drew image and label together",
    "pseudo": "a segmenter that was trained on the run's training split labelled the images; "
    "they are its predictions, nobody drew or checked them",
}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    count: int
    label_source: str


def export(
    out: Path,
    generator: str,
    to: Path,
    format: Format = "decathlon",
    seed: int | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write the volumes that a run drew from `generator` into the new folder `to`.

    Raises:
        InputError: the run has no such generator or seed, its volumes are not drawn or not
            labelled yet, are damaged, or `to` is in use or named unfit for nnU-Net.
    """
    require_new(to)
    if format == "nnunet":
        require_nnunet_name(to)
    run = read_run(out)
    cell = sample_cell(run, out, generator, run["config"]["seeds"][0] if seed is None else seed)
    with undamaged():
        volumes = _pairs(Store(out), run, cell)
    write = {"decathlon": write_decathlon, "nnunet": write_nnunet}[format]
    with writing(to):
        write(
            _cases(volumes),
            to,
            volumes.label_names,
            _about(run, cell),
            lambda done: tick(done, len(volumes)),
        )
    return Exported(to, len(volumes), cell.tags.label_source)


def _pairs(store: Store, run: dict[str, Any], cell: Cell) -> VolumeSet:
    volumes = VolumeSet.open(_finished(store, cell) / "synthetic")
    if cell.tags.label_source != "pseudo":
        return volumes
    cells = map(Cell.from_json, run["cells"])
    labels = next(c for c in cells if c.kind == "label" and c.needs["synthetic"] == cell.key)
    return volumes.with_labels(_finished(store, labels) / "labels.npy")


def _finished(store: Store, cell: Cell) -> Path:
    """Folder of a done cell's artefacts, compared with their checksums."""
    status, reason = store.status(cell.key)
    if status != "done":
        raise InputError(
            f"{cell.title!r} of the run {store.out} is {status}"
            f"{f' ({reason})' if reason else ''}; give its bench run command again."
        )
    store.verify(cell.key)
    return store.artefacts(cell.key)


def _cases(volumes: VolumeSet) -> Iterator[ToWrite]:
    for i, case in enumerate(volumes.cases):
        yield ToWrite(case.id, volumes.image(i), volumes.label(i), np.asarray(case.affine))


def _about(run: dict[str, Any], cell: Cell) -> dict[str, Any]:
    """What whoever finds the folder must know."""
    tags = cell.tags
    return {
        "description": f"Synthetic volumes of {tags.generator}, fitted on {run['data']['name']} "
        f"with seed {tags.seed}. Labels are {tags.label_source}: "
        f"{_LABELS_FROM[tags.label_source]}.",
        "label_source": tags.label_source,
        "generator": {
            "name": tags.generator,
            "version": cell.spec["version"],
            "seed": tags.seed,
            "config": cell.spec["config"],
        },
        "licence": "that of the data which the generator was fitted on, where it binds what is "
        "made from them",
    }

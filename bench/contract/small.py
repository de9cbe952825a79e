"""What a plug-in is checked on: a tiny phantom, and its configuration with few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config import apply_setting, validate
from bench.datasets.config import DataConfig
from bench.few_steps import brief, changed, parts, with_batch
from bench.harness import trainings
from bench.presets import read_preset
from bench.scaling import Grid
from bench.volumes import VolumeSet, VolumeSetWriter

GRID: Grid = (32, 32, 32)
LARGER: Grid = (64, 64, 64)  # for networks that cannot take the one above
OTHER: Grid = (32, 48, 32)  # unequal sides, one no power of two; every run's sides divide by 16
STEPS, STOP = 3, 1  # of a fit, and the one after which a fit is stopped
BATCH = 2
SAMPLING_STEPS = 3
CASES = {"train": 4, "val": 2, "other": 2, "test": 2, "held": 2}
"""Cases of each set; "other" takes the place of "val"."""


@dataclass(frozen=True)
class Sets:
    """Prepared volumes as a run has them; what no fit is given lies beside what it is given."""

    folder: Path

    def part(self, name: str) -> VolumeSet:
        return VolumeSet.open(self.folder / name)


def small_sets(folder: Path, grid: Grid) -> Sets:
    """Phantoms of `grid` under `folder`, made where they are not there yet."""
    from bench.datasets.source import PhantomSource

    config = DataConfig(cases=sum(CASES.values()), grid=grid)
    source = PhantomSource(config)
    ids = iter(source.ids)
    sets = Sets(folder / "x".join(map(str, grid)))
    for name, count in CASES.items():
        if (sets.folder / name / "set.json").is_file():
            continue
        provenance = {"source": source.name, "config": config.model_dump(mode="json")}
        with VolumeSetWriter(sets.folder / name, grid, source.label_names, provenance) as writer:
            for _ in range(count):
                case = source.load(id := next(ids))
                writer.append(id, case.image, case.label, case.affine)
    return sets


def small_config(model: Any, kind: str, name: str, settings: Sequence[str]) -> dict[str, Any]:
    """The plug-in's configuration, that of the preset quick where it has one, shortened.

    Fits take few steps of small batches and keep their last networks. `settings` are the
    user's ``key=value``, which win.
    """
    where = f"{kind}.{name}"
    own = (read_preset("quick").get(kind) or {}).get(name, {})
    config = validate(model, own, where)
    values = brief(config.model_dump(mode="json"), STEPS)
    for path, training in trainings(config):
        few = {"steps": STEPS, "batch_size": min(BATCH, training.batch_size)}
        for key, value in {**few, "keep": "last", "patience": 0}.items():
            values = changed(values, path, key, value)
    for path, part in parts(values, "sampling").items():
        values = changed(values, path, "steps", min(SAMPLING_STEPS, part["steps"]))
    values = with_batch(values, "sampling", BATCH)
    for setting in settings:
        apply_setting(values, setting)
    return dict(validate(model, values, where).model_dump(mode="json"))

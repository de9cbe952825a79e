"""Runs as they lie in their folders, alone or several beside one another in one leaderboard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.plan import Cell, Tags
from bench.store import Store

_ALIKE = ("scoring", "segmentation", "labeller")
"""Parts of the configuration that fix what a number means."""
_FREE = {"scoring.weights", "scoring.synthetic", "segmentation.keep_weights"}
"""What in them does not: a path, a number of volumes that the tables show, what is kept."""


@dataclass(frozen=True)
class StoredRun:
    """A run and the store that holds its cells."""

    store: Store
    run: Mapping[str, Any]  # what OUT/run.json holds
    names: Mapping[str, str] = field(default_factory=dict)  # generator -> its name in the tables
    elsewhere: frozenset[tuple[str, Tags]] = frozenset()  # what another run's cells stand for
    note: str = ""  # what of this run is left out

    @cached_property
    def every(self) -> tuple[Cell, ...]:
        """The run's cells in order."""
        return tuple(Cell.from_json(value) for value in self.run["cells"])

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Those that this run gives to the tables."""
        if not self.elsewhere:
            return self.every
        return tuple(cell for cell in self.every if self.stands_for(cell) not in self.elsewhere)

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """Key -> result of every finished cell, read once."""
        found = {cell.key: self.store.result(cell.key) for cell in self.every}
        return {key: result for key, result in found.items() if result is not None}

    def done(self, kind: str) -> Iterator[Cell]:
        """The finished cells of a kind."""
        for cell in self.cells:
            if cell.kind == kind and cell.key in self.results:
                yield cell

    def shown(self, cell: Cell) -> str:
        """The generator of a cell under its name in the tables."""
        return self.names.get(cell.tags.generator, cell.tags.generator)

    def but(self, **changes: Any) -> StoredRun:
        """The same run with other fields; what was read of its cells is not read again."""
        other = replace(self, **changes)
        other.__dict__.update({k: v for k, v in vars(self).items() if k in ("every", "results")})
        return other

    def stands_for(self, cell: Cell) -> tuple[str, Tags]:
        """What a cell is in the tables: no two runs may give the same."""
        return cell.kind, cell.tags._replace(generator=self.shown(cell))


def read_run(out: Path) -> dict[str, Any]:
    """OUT/run.json; InputError if OUT holds no run."""
    path = out / "run.json"
    if not path.is_file():
        raise InputError(
            f"{out} holds no run: there is no {path.name}; give the --out of a bench run."
        )
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "controls" not in run:
        raise InputError(
            f"{path} was written by an earlier version; give the same bench run command again."
        )
    return run


def open_run(out: Path) -> StoredRun:
    """The last run in OUT; InputError if there is none."""
    return StoredRun(Store(out), read_run(out))


def together(outs: Sequence[Path]) -> list[StoredRun]:
    """Runs whose numbers may stand in one leaderboard.

    What several have (R of the same segmenter, the floor) comes from the first in which it is done.
    A generator that was trained differently in a later run has that run's name beside its own.

    Raises:
        InputError: a folder holds no run, or two differ in what fixes a number: data, extractor,
            scoring, training of segmenters.
    """
    if len({out.resolve() for out in outs}) < len(outs):
        raise InputError(f"A run is named twice in {_listed(outs)}; name each once.")
    if len(outs) == 1:
        return [open_run(outs[0])]
    runs = [open_run(out) for out in outs]
    for other in runs[1:]:
        check_alike(runs[0], other)
    named: list[StoredRun] = []
    for run in runs:
        named.append(run.but(names=_names(run, named)))
    return _shared([named[0], *(_without_task_features(run, named[0]) for run in named[1:])])


def _shared(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Each number from one run alone: the first in which all cells that give it are done."""
    home: dict[tuple[str, Tags], int] = {}
    finished: dict[tuple[str, Tags], bool] = {}
    for place, run in enumerate(runs):
        own: dict[tuple[str, Tags], bool] = {}
        for cell in run.cells:
            what = run.stands_for(cell)
            own[what] = own.get(what, True) and cell.key in run.results
        for what, done in own.items():
            if what not in home or (done and not finished[what]):
                home[what], finished[what] = place, done
    return [
        run.but(elsewhere=run.elsewhere | {what for what, at in home.items() if at != place})
        for place, run in enumerate(runs)
    ]


def _without_task_features(run: StoredRun, first: StoredRun) -> StoredRun:
    """The run without its scores on task features, where these are another segmenter's."""
    if _task_labeller(run) == _task_labeller(first):
        return run
    scores = frozenset(run.stands_for(c) for c in run.every if c.kind.startswith("task-"))
    note = (
        f"Scores on task features of {run.store.out.name} are left out: its labeller is not that "
        f"of {first.store.out.name}."
    )
    return run.but(elsewhere=run.elsewhere | scores, note=note if scores else "")


def _task_labeller(run: StoredRun) -> str:
    """Key of the segmenter whose features are the task features; "" where there are none."""
    features = (cell for cell in run.every if cell.kind == "features")
    return next((cell.needs["labeller"] for cell in features if "labeller" in cell.needs), "")


def check_alike(first: StoredRun, other: StoredRun) -> None:
    """InputError that says what differs, where numbers of the two may not stand in one table."""
    pair = f"{first.store.out} and {other.store.out}"
    for facts, why in (
        (extractor_facts, "their FIDs are on different scales"),
        (data_facts, "they are measured on different test sets"),
    ):
        told = difference(facts(first), facts(other))
        if told:
            raise InputError(
                f"{pair} cannot share a leaderboard, for {why}: {told}; make one leaderboard for "
                "each."
            )
    kept = [{part: run.run["config"][part] for part in _ALIKE} for run in (first, other)]
    both = set(first.run["config"]["segmenters"]) & set(other.run["config"]["segmenters"])
    tasks = [{task["name"]: task for task in run.run["data"]["tasks"]} for run in (first, other)]
    for values, own, run in zip(kept, tasks, (first, other), strict=True):
        values["segmenters"] = {name: run.run["config"]["segmenters"][name] for name in both}
        values["tasks"] = {name: own[name] for name in tasks[0] if name in tasks[1]}
    told = difference(*kept)
    if told:
        raise InputError(
            f"{pair} cannot share a leaderboard, for they were trained or scored differently: "
            f"{told}; run one of them anew with the other's settings."
        )


def difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first value that differs, "key one and other"; "" where all are equal."""
    rows = differences(first, other)
    return next((f"{key} is {a} and {b}" for key, a, b in rows if key not in _FREE), "")


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Every value that differs between two nested mappings: key, one, other."""
    flat = [dict(_flat(values)) for values in (first, other)]
    keys = dict.fromkeys(key for values in flat for key in values)
    values = [(key, *(_written(one.get(key, "not set")) for one in flat)) for key in keys]
    return [(key, a, b) for key, a, b in values if a != b]


def extractor_facts(run: StoredRun) -> dict[str, Any]:
    """What fixes the scale of an FID."""
    return {key: value for key, value in run.run["extractor"].items() if key != "path"}


def data_facts(run: StoredRun) -> dict[str, Any]:
    """What fixes the prepared volumes, and so the test set."""
    (prepared,) = (cell for cell in run.every if cell.kind == "prepare")
    named = {"name": run.run["data"]["name"]}
    return {**named, **prepared.spec["data"], "fingerprint": prepared.spec["source"]}


def _names(run: StoredRun, earlier: Sequence[StoredRun]) -> dict[str, str]:
    """New names for generators that an earlier run trained in another way."""
    names = {}
    for name in run.run["config"]["generators"]:
        own = _recipe(run, name)
        others = [
            _recipe(other, name) for other in earlier if name in other.run["config"]["generators"]
        ]
        if any(other != own for other in others):
            names[name] = f"{name} ({run.store.out.name})"
    return names


def _recipe(run: StoredRun, generator: str) -> list[str]:
    """All that determines a generator but the seed."""
    return sorted(
        {
            json.dumps([cell.kind, {**cell.spec, "seed": 0}], sort_keys=True)
            for cell in run.every
            if cell.kind in ("fit", "sample") and cell.tags.generator == generator
        }
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _listed(outs: Sequence[Path]) -> str:
    return ", ".join(map(str, outs))

"""Drawing from a finished run: more volumes of a generator, or images for given label maps."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bench.cells.context import Context
from bench.cells.fit import make_generator
from bench.cells.sample import Place, write_samples
from bench.config import apply_setting, validate
from bench.datasets.config import DataConfig
from bench.datasets.given import GivenLabels, read_given_labels
from bench.device import Device
from bench.errors import InputError, nearest
from bench.generator import Generator
from bench.harness import blamed
from bench.plan import Cell
from bench.records import Record
from bench.registry import GENERATORS, load_plugin
from bench.runs import read_run
from bench.store import Damaged, Store
from bench.volumes import VolumeSet

DEFAULT_COUNT = 10
TAKES_LABELS = "sample_images"
"""Method of generators that draw images for given label maps:
(label maps, indices, run) -> samples."""


@dataclass(frozen=True)
class Fitted:
    """A generator of a run, of which every stage is done."""

    generator: Generator
    cell: Cell  # the run's own cell that samples it
    store: Store
    data: DataConfig
    device: Device


class Drawn(NamedTuple):
    """What was drawn."""

    volumes: VolumeSet
    seconds: float  # a volume
    records: list[Record]  # what the generator measured of its draws


def open_fitted(
    out: Path, name: str, seed: int | None = None, settings: Sequence[str] = ()
) -> Fitted:
    """The generator `name` of the run in `out`, fitted with `seed` (the run's first by default).

    `settings` are ``key=value`` of the generator's configuration, or ``device.key=value``; they
    may change what is no part of a fit.

    Raises:
        InputError: there is no such run, generator or seed, a fit is not done, is damaged, or was
            made by another version, or a setting is of a fit.
    """
    run = read_run(out)
    for path in run["plugins"]:
        load_plugin(_own_plugin(Path(path), out))
    store, config = Store(out), run["config"]
    cell = sample_cell(run, out, name, config["seeds"][0] if seed is None else seed)
    _require_fits(store, cell)
    values: dict[str, Any] = {**cell.spec["config"], "device": config["device"]}
    for setting in settings:
        apply_setting(values, setting)
    device = validate(Device, values.pop("device"), "device")
    data = validate(DataConfig, config["data"], "data")
    plugin_config = validate(GENERATORS.get(name).Config, values, f"generators.{name}")
    with blamed("generator", name):
        generator = make_generator(name, plugin_config)
        _require_same_fits(generator, cell, store)
        names = {int(value): label for value, label in run["data"]["label_names"].items()}
        generator.check(data.grid, names)
    device.check()
    return Fitted(generator, cell, store, data, device)


def _own_plugin(path: Path, out: Path) -> Path:
    """A plug-in file that the run was given; InputError if it came with the run's folder.

    A run's folder holds data. Whoever hands one on must not have code run by it.
    """
    if not path.is_absolute() or path.resolve().is_relative_to(out.resolve()):
        raise InputError(
            f"{out / 'run.json'} names the plug-in file {path} in the run's own folder, from which "
            "no code is run; move the file elsewhere and give the run's bench run command again."
        )
    return path


def sample_cell(run: Mapping[str, Any], out: Path, name: str, seed: int) -> Cell:
    """The run's own cell that samples the generator; InputError if the run has none."""
    names, seeds = list(run["config"]["generators"]), run["config"]["seeds"]
    if name not in names:
        which = nearest(name, names) if names else "it has none at all."
        raise InputError(f"The run {out} has no generator {name!r}: {which}")
    if seed not in seeds:
        raise InputError(
            f"The run {out} has no seed {seed}: {name} was fitted with {seeds}; give one of them."
        )
    return next(
        cell
        for cell in map(Cell.from_json, run["cells"])
        if (cell.kind, cell.tags.generator, cell.tags.seed) == ("sample", name, seed)
    )


def _require_fits(store: Store, cell: Cell) -> None:
    for key in cell.needs.values():
        status, reason = store.status(key)
        if status != "done":
            raise InputError(
                f"{cell.tags.generator} cannot be sampled: {store.cell(key).title!r} of the run "
                f"{store.out} is {status}{f' ({reason})' if reason else ''}; give its bench run "
                "command again."
            )


def _require_same_fits(generator: Generator, cell: Cell, store: Store) -> None:
    """InputError unless the generator would be fitted now as the run has fitted it."""
    if cell.spec["version"] != GENERATORS.version(generator.name):
        raise InputError(
            f"{generator.name} was fitted by its version {cell.spec['version']!r}, installed is "
            f"{GENERATORS.version(generator.name)!r}; give the run's bench run command again."
        )
    for stage in generator.stages():
        key = cell.needs.get(f"stage:{stage.name}")
        fitted = store.cell(key).spec["config"] if key else {}
        now = stage.config.model_dump(mode="json")
        for path, before, after in _differences(fitted, now):
            raise InputError(
                f"The stage {stage.name!r} of {generator.name} was fitted with {path} = {before!r},"
                f" asked is {after!r}; only what is no part of a fit can be set here, such as "
                "sampling.steps: for others give bench run."
            )


def _differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, value before and value after, wherever two configurations differ."""
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        if before != after:
            yield path, before, after
        return
    for key in dict.fromkeys((*before, *after)):
        deeper = f"{path}.{key}" if path else str(key)
        yield from _differences(before.get(key), after.get(key), deeper)


def draw(
    fitted: Fitted,
    folder: Path,
    first: int = 0,
    count: int | None = None,
    labels: Path | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Drawn:
    """Draw the volumes first, first + 1, ... into a new volume set in `folder`.

    Volume i is the one that the run's own cell draws as its i-th. With `labels` (see
    `read_given_labels`), the k-th volume is an image for the k-th label map, beginning anew where
    `count` asks for more.

    Raises:
        InputError: `folder` is in use, the label maps are not usable, or the generator takes none.
    """
    _require_free(folder)
    if labels is not None and not hasattr(fitted.generator, TAKES_LABELS):
        raise InputError(
            f"The generator {fitted.generator.name!r} draws no images for given label maps; leave "
            "out --labels or choose one that does, such as 3d-lldm."
        )
    fitted.device.use_threads()
    with tempfile.TemporaryDirectory(prefix="voxelbench-") as scratch, undamaged():
        context = Context(
            fitted.cell, fitted.store, folder, fitted.device, lambda *_: None, lambda: False
        )
        train = context.volumes("train")
        run = replace(context.run(train, held=fitted.generator.needs_held), folder=Path(scratch))
        given = None
        if labels is not None:
            store = Path(scratch) / "labels.npy"
            given = read_given_labels(labels, fitted.data, train.label_names, store)
        if count is None:
            count = DEFAULT_COUNT if given is None else len(given.ids)
        indices = range(first, first + count)
        provenance = {
            "generator": fitted.generator.name,
            "seed": run.seed,
            "labels": fitted.generator.labels if given is None else "given",
            "config": fitted.generator.config.model_dump(mode="json"),
        }
        begun = time.perf_counter()
        if given is None:
            samples, place = fitted.generator.sample(indices, run), None
        else:
            samples, place = _guided(fitted.generator, given, indices, run), _places(given)
        volumes = write_samples(
            folder, fitted.generator, samples, indices, train, provenance, tick, place
        )
    return Drawn(volumes, (time.perf_counter() - begun) / count, run.records)


def _guided(generator: Any, given: GivenLabels, indices: range, run: Any) -> Iterator[Any]:
    maps = (given.maps[k % len(given.ids)] for k in range(len(indices)))
    yield from generator.sample_images(maps, indices, run)


def _places(given: GivenLabels) -> Callable[[int], Place]:
    """An image lies where its label map does."""

    def place(k: int) -> Place:
        i = k % len(given.ids)
        return Place(given.affines[i], {"label": given.ids[i]})

    return place


def _require_free(folder: Path) -> None:
    """InputError if anything but an unfinished volume set is in `folder`."""
    unfinished = {"images.npy", "labels.npy"}
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give another --out.")
    if folder.is_dir() and {path.name for path in folder.iterdir()} - unfinished:
        raise InputError(f"{folder} holds something already; give an empty or a new --out.")


@contextmanager
def undamaged() -> Iterator[None]:
    """What was damaged since it was fitted is the user's to mend."""
    try:
        yield
    except Damaged as error:
        raise InputError(
            f"{str(error).rstrip('.')}; give bench validate --set-aside the run's folder, then the "
            "run's command again."
        ) from error

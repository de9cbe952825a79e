"""From the store to records and leaderboard: what `bench run` ends with and `bench report` does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.disk import writing
from bench.engine.schedule import settled
from bench.errors import InputError
from bench.plan import Cell
from bench.records import CellRow, Record, cells_frame, records_frame
from bench.sealed import write_atomic
from bench.store import Damaged, Store

if TYPE_CHECKING:
    from leaderboard import Leaderboard, RunInfo

RULES_NOTHING = "The preset quick shows the machinery; its numbers rank nothing."


def report(store: Store, run: Mapping[str, Any]) -> Leaderboard:
    """Write OUT/records.csv and OUT/leaderboard/ of `run` from whatever cells are done."""
    import leaderboard

    cells = [Cell.from_json(value) for value in run["cells"]]
    found, seconds = collect(store, run, cells)
    records = records_frame(found)
    rows = cells_frame(cell_rows(store, cells, seconds))
    folder = store.out / "leaderboard"
    with writing(store.out):
        write_atomic(store.out / "records.csv", records.to_csv(index=False))
        pairs, damaged = draw_pairs(store, cells, folder)
        board = leaderboard.build(records, rows, run_info(run, pairs, damaged))
        leaderboard.write(board, folder)
    return board


def draw_pairs(
    store: Store, cells: list[Cell], folder: Path
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Figures of the nearest pairs in `folder`, of each generator's first seed: name -> file; and a
    sentence for each that is left out because its artefact is damaged."""
    from leaderboard.figures import nearest_pairs

    files: dict[str, str] = {}
    damaged: list[str] = []
    for cell in cells:
        path, name = store.artefacts(cell.key) / "pairs.npz", cell.tags.generator
        if cell.kind != "memorise" or name in files or not store.is_done(cell.key):
            continue
        try:
            store.verify(cell.key)
        except Damaged as error:
            damaged.append(f"No nearest pairs of {name}: {error}")
            continue
        if not path.is_file():  # no distances could be measured
            continue
        try:
            pairs = read_pairs(path)
        except ValueError as error:
            damaged.append(f"No nearest pairs of {name}: {path} cannot be read: {error}")
            continue
        files[name] = f"nearest-{file_name(name)}.png"
        folder.mkdir(parents=True, exist_ok=True)
        nearest_pairs(pairs, folder / files[name])
    return files, tuple(damaged)


def read_pairs(path: Path) -> list[tuple[NDArray[Any], NDArray[Any], str]]:
    """Slices of a synthetic volume and its nearest training volume, and a caption, for each pair.

    ValueError if the file holds anything but numbers and text.
    """
    names = ("synthetic", "train", "train_ids", "distance")
    with np.load(path, allow_pickle=False) as kept:
        return [
            (upright(synthetic), upright(train), f"{train_id}, distance {distance:.3g}")
            for synthetic, train, train_id, distance in zip(*(kept[n] for n in names), strict=True)
        ]


def file_name(name: str) -> str:
    """A plug-in's name as part of a file's; two names never give the same one."""
    slug = re.sub(r"[^a-zA-Z0-9.-]+", "-", name)
    return slug if slug == name else f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def upright(axial: NDArray[Any]) -> NDArray[Any]:
    """An axial slice (R, A) as radiologists look at it: anterior up, the patient's right left."""
    return axial.T[::-1, ::-1]


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


def collect(
    store: Store, run: Mapping[str, Any], cells: list[Cell]
) -> tuple[list[Record], dict[str, float]]:
    """Every record of the run's finished cells, with what the cell stands for; and the seconds that
    each of these cells took, by key."""
    config, records = run["config"], []
    seconds: dict[str, float] = {}
    for cell in cells:
        result = store.result(cell.key)
        if result is None:
            continue
        seconds[cell.key] = result["seconds"]
        tags = cell.tags
        common = Record(
            cell=cell.key[:16],
            kind=cell.kind,
            dataset=run["data"]["name"],
            preset=config["preset"],
            grid="x".join(map(str, config["data"]["grid"])),
            seed=tags.seed,
            generator=tags.generator,
            stage=tags.stage,
            segmenter=tags.segmenter,
            task=tags.task,
            arm=tags.arm,
            real=tags.real,
            ratio=tags.ratio,
            label_source=tags.label_source,
            device=result["environment"]["device"],
            seconds=result["seconds"],
        )
        records += [Record(**{**common, **record}) for record in result["records"]]
    return records, seconds


def cell_rows(store: Store, cells: list[Cell], done: Mapping[str, float]) -> list[CellRow]:
    """How every planned cell stands; `done` has the seconds of those that are finished, by key."""
    outcome: dict[str, tuple[str, str]] = {}
    plan = {cell.key: cell for cell in cells}
    rows = []
    for cell in cells:
        status, reason = "done", ""
        if cell.key not in done:
            status, reason = settled(store, cell, outcome, plan) or ("waiting", "not run yet")
        outcome[cell.key] = (status, reason)
        tags = cell.tags
        rows.append(
            CellRow(
                cell=cell.key[:16],
                kind=cell.kind,
                generator=tags.generator,
                segmenter=tags.segmenter,
                task=tags.task,
                arm=tags.arm,
                real=tags.real,
                ratio=tags.ratio,
                seed=tags.seed,
                status=status,
                reason=reason,
                seconds=done.get(cell.key, 0.0),
            )
        )
    return rows


def run_info(
    run: Mapping[str, Any],
    pairs: Mapping[str, str] | None = None,
    damaged: Sequence[str] = (),
) -> RunInfo:
    """What the captions say of the run; `pairs` and `damaged` are those of `draw_pairs`."""
    from leaderboard import RunInfo
    from metrics.intervals import INTERVAL_METHOD

    config, data = run["config"], run["data"]
    parts = ("train", "val", "test", *(("held",) if data["n_held"] else ()))
    notes = [RULES_NOTHING] if config["preset"] == "quick" else []
    return RunInfo(
        dataset=data["name"],
        preset=config["preset"],
        grid="x".join(map(str, config["data"]["grid"])),
        extractor=extractor_text(run["extractor"]),
        seeds=tuple(config["seeds"]),
        splits={part: data[f"n_{part}"] for part in parts},
        notes=(*notes, *([config["note"]] if config["note"] else []), *damaged),
        generators=tuple(config["generators"]),
        segmenters=tuple(config["segmenters"]),
        tasks=tuple(config["tasks"]) or tuple(task["name"] for task in data["tasks"]),
        budget=config["segmentation"]["equal"],
        interval_method=f"{INTERVAL_METHOD} {config['scoring']['resamples']} resamples.",
        pairs=pairs or {},
        stages=stages_of(run),
        controls=tuple(run["controls"]),
        neighbours=config["scoring"]["neighbours"],
        tolerance_mm=config["segmentation"]["tolerance_mm"],
        ms_ssim_pairs=config["scoring"]["diversity_pairs"],
    )


def stages_of(run: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The cells that trained and sampled each generator: keys cut as in the records, in order.

    A stage that an earlier generator trains under its own name is among them.
    """
    cells: dict[str, dict[str, None]] = {}
    for cell in map(Cell.from_json, run["cells"]):
        if cell.kind == "sample":
            fits = [key for role, key in cell.needs.items() if role.startswith("stage:")]
            own = cells.setdefault(cell.tags.generator, {})
            own.update((key[:16], None) for key in (*fits, cell.key))
    return {name: tuple(own) for name, own in cells.items()}


def extractor_text(extractor: Mapping[str, str]) -> str:
    """The extractor in words."""
    if extractor["name"] == "texture":
        return (
            "texture (offline descriptor, no pretrained weights; not comparable with MedicalNet's)"
        )
    facts = [f"preprocessing {extractor['preprocess']}"] if extractor["preprocess"] else []
    facts += [f"weights sha256 {extractor['sha256'][:16]}…"] if extractor["sha256"] else []
    return f"{extractor['name']} ({', '.join(facts)})" if facts else extractor["name"]

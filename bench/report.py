"""From the store to records and leaderboard: what `bench run` ends with and `bench report` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.disk import writing
from bench.engine.schedule import settled
from bench.pictures import read_pictures
from bench.records import CellRow, Record, cells_frame, joined_frame, records_csv
from bench.runs import StoredRun, data_facts, difference, differences
from bench.sealed import write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from leaderboard import Leaderboard, RunInfo
    from leaderboard.blocks import Page

RULES_NOTHING = "The preset quick shows the machinery; its numbers rank nothing."


def report(runs: Sequence[StoredRun], out: Path, pictures: bool = True) -> Leaderboard:
    """Write out/records.csv and out/leaderboard/ from whatever cells are done.

    Args:
        runs: one, or several that `bench.runs.together` found alike.
        out: the run's own folder, or another one.
        pictures: whether volumes, segmentations and training curves are shown.
    """
    import leaderboard

    records, board = read_board(runs)
    folder = out / "leaderboard"
    with writing(out):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "records.csv", records_csv(records))
        shown = read_pictures(runs, board.cases, folder) if pictures else leaderboard.NO_PICTURES
        leaderboard.write(board, folder, shown)
    return board


def read_board(runs: Sequence[StoredRun]) -> tuple[pd.DataFrame, Leaderboard]:
    """Every record of the runs, and the tables; nothing is written."""
    import leaderboard

    records, rows = frames(runs)
    return records, leaderboard.build(records, rows, joined([run_info(run) for run in runs]))


def frames(runs: Sequence[StoredRun]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every record of the runs, and how every cell stands."""
    records = [cell for run in runs for cell in collect(run)]
    rows = [row for run in runs for row in cell_rows(run)]
    return joined_frame(records), cells_frame(rows)


def comparison(before: StoredRun, after: StoredRun) -> Page:
    """What changed from one run to another; nothing is written."""
    from leaderboard.comparison import Side, compare

    one, other = (Side(str(run.store.out), *frames([run])) for run in (before, after))
    settings = differences(before.run["config"], after.run["config"])
    data = difference(data_facts(before), data_facts(after))
    return compare(one, other, settings, data)


def collect(stored: StoredRun) -> Iterator[tuple[Record, list[Record]]]:
    """Of each finished cell of the run what it stands for, and its records."""
    run, config = stored.run, stored.run["config"]
    grid = "x".join(map(str, config["data"]["grid"]))
    for cell in stored.cells:
        result = stored.results.get(cell.key)
        if result is None:
            continue
        tags = cell.tags
        common = Record(
            cell=cell.key[:16],
            kind=cell.kind,
            dataset=run["data"]["name"],
            preset=config["preset"],
            grid=grid,
            seed=tags.seed,
            generator=stored.shown(cell),
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
        yield common, result["records"]


def cell_rows(stored: StoredRun) -> list[CellRow]:
    """How every planned cell stands."""
    outcome: dict[str, tuple[str, str]] = {}
    plan = {cell.key: cell for cell in stored.every}
    given = {cell.key for cell in stored.cells}
    rows = []
    for cell in stored.every:
        status, reason = "done", ""
        if cell.key not in stored.results:
            status, reason = settled(stored.store, cell, outcome, plan) or (
                "waiting",
                "not run yet",
            )
        outcome[cell.key] = (status, reason)
        if cell.key not in given:
            continue
        result = stored.results.get(cell.key)
        tags = cell.tags
        rows.append(
            CellRow(
                cell=cell.key[:16],
                kind=cell.kind,
                generator=stored.shown(cell),
                segmenter=tags.segmenter,
                task=tags.task,
                arm=tags.arm,
                real=tags.real,
                ratio=tags.ratio,
                seed=tags.seed,
                status=status,
                reason=reason,
                seconds=result["seconds"] if result else 0.0,
            )
        )
    return rows


def run_info(stored: StoredRun) -> RunInfo:
    """What the captions say of the run."""
    from leaderboard import RunInfo
    from metrics.intervals import INTERVAL_METHOD

    run = stored.run
    config, data, names = run["config"], run["data"], stored.names
    parts = ("train", "val", "test", *(("held",) if data["n_held"] else ()))
    notes = [RULES_NOTHING] if config["preset"] == "quick" else []
    notes += [note for note in (config["note"], stored.note) if note]
    return RunInfo(
        dataset=data["name"],
        preset=config["preset"],
        grid="x".join(map(str, config["data"]["grid"])),
        extractor=extractor_text(run["extractor"]),
        seeds=tuple(config["seeds"]),
        splits={part: data[f"n_{part}"] for part in parts},
        notes=tuple(notes),
        generators=tuple(names.get(name, name) for name in config["generators"]),
        segmenters=tuple(config["segmenters"]),
        tasks=tuple(config["tasks"]) or tuple(task["name"] for task in data["tasks"]),
        budget=config["segmentation"]["equal"],
        interval_method=f"{INTERVAL_METHOD} {config['scoring']['resamples']} resamples.",
        stages=stages_of(stored),
        controls=tuple(names.get(name, name) for name in run["controls"]),
        neighbours=config["scoring"]["neighbours"],
        tolerance_mm=config["segmentation"]["tolerance_mm"],
        ms_ssim_pairs=config["scoring"]["diversity_pairs"],
    )


def joined(infos: Sequence[RunInfo]) -> RunInfo:
    """What the captions say of several runs together; they are alike in all that is not listed."""
    from dataclasses import replace

    def each(name: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(value for info in infos for value in getattr(info, name)))

    return replace(
        infos[0],
        preset=" and ".join(dict.fromkeys(info.preset for info in infos)),
        seeds=tuple(sorted(each("seeds"))),
        notes=each("notes"),
        generators=each("generators"),
        segmenters=each("segmenters"),
        tasks=each("tasks"),
        controls=each("controls"),
        stages={name: cells for info in infos for name, cells in info.stages.items()},
    )


def stages_of(stored: StoredRun) -> dict[str, tuple[str, ...]]:
    """The cells that trained and sampled each generator: keys cut as in the records, in order.

    A stage that an earlier generator trains under its own name is among them.
    """
    cells: dict[str, dict[str, None]] = {}
    for cell in stored.every:
        if cell.kind == "sample":
            fits = [key for role, key in cell.needs.items() if role.startswith("stage:")]
            own = cells.setdefault(stored.shown(cell), {})
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

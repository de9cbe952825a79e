"""From the store to records: what stands where, and how cells that did not end well stand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import InputError
from bench.pictures import Reader, draw_pairs, upright
from bench.plan import Cell, Tags
from bench.records import Record
from bench.report import cell_rows, collect, extractor_text, report, run_info
from bench.runs import StoredRun, open_run, read_run
from bench.store import Store
from leaderboard import RunInfo
from leaderboard.names import file_name

FIT = Cell("fit", {"n": 1}, {}, Tags(generator="g", stage="g/fit"))
SAMPLE = Cell("sample", {"n": 2}, {"stage:g/fit": FIT.key}, Tags(generator="g"))
REAL = Cell("segment", {"n": 3}, {}, Tags(segmenter="unet", task="t", arm="R", real="all"))
BOTH = Cell(
    "segment",
    {"n": 4},
    {"synthetic": SAMPLE.key},
    Tags("g", "", "unet", "t", "R+S", "all", 1.0, 0, "joint"),
)
CELLS = [FIT, SAMPLE, REAL, BOTH]
RUN: dict[str, Any] = {
    "config": {
        "preset": "quick",
        "data": {"grid": [32, 48, 64]},
        "seeds": [0],
        "note": "A note.",
        "generators": {"g": {}},
        "segmenters": {"unet": {}},
        "tasks": [],
        "segmentation": {"equal": "steps", "tolerance_mm": 3.0},
        "scoring": {"resamples": 321, "neighbours": 5, "diversity_pairs": 7},
    },
    "data": {
        **{"name": "toy", "n_train": 7, "n_val": 1, "n_test": 2, "n_held": 0},
        "tasks": [{"name": "t"}],
    },
    "controls": ["g"],
    "extractor": {"name": "texture", "sha256": "", "path": ""},
    "cells": [cell.to_json() for cell in CELLS],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.prepare_folder()
    for cell in CELLS:
        store.add(cell)
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    return store


def done(store: Store, cell: Cell, *records: Record) -> None:
    with store.attempt(cell.key) as fresh:
        facts = {"seconds": 2.5, "environment": {"device": "cpu"}}
        store.finish(cell.key, fresh, records, facts)


def info(run: dict[str, Any] = RUN) -> RunInfo:
    return run_info(StoredRun(Store(""), run))


def standing(store: Store) -> list[tuple[str, str]]:
    return [(row["status"], row["reason"]) for row in cell_rows(StoredRun(store, RUN))]


def test_what_was_not_run_waits(store: Store) -> None:
    assert standing(store) == [("waiting", "not run yet")] * 4
    done(store, FIT)
    assert [status for status, _ in standing(store)] == ["done", "waiting", "waiting", "waiting"]


def test_what_needs_a_failed_cell_is_blocked_with_the_first_reason(store: Store) -> None:
    store.note(FIT.key, "started", host="h", pid=1)
    store.note(FIT.key, "failed", reason="Diverged: the loss is nan")
    done(store, REAL)
    why = "needs fit g fit, which failed: Diverged: the loss is nan"
    assert standing(store) == [
        ("failed", "Diverged: the loss is nan"),
        ("blocked", why),
        ("done", ""),
        ("blocked", why),
    ]


def test_a_record_carries_what_its_cell_stands_for(store: Store) -> None:
    done(store, BOTH, Record(metric="dice", case="a", value=0.25, seconds=9.0))
    ((common, (record,)),) = collect(StoredRun(store, RUN))
    assert {**common, **record} == {
        "cell": BOTH.key[:16],
        "kind": "segment",
        "dataset": "toy",
        "preset": "quick",
        "grid": "32x48x64",
        "seed": 0,
        "generator": "g",
        "stage": "",
        "segmenter": "unet",
        "task": "t",
        "arm": "R+S",
        "real": "all",
        "ratio": 1.0,
        "label_source": "joint",
        "device": "cpu",
        "seconds": 9.0,
        "metric": "dice",
        "case": "a",
        "value": 0.25,
    }


def test_a_report_shows_what_is_done_and_why_the_rest_is_not(store: Store) -> None:
    done(
        store, REAL, *(Record(metric="dice", case=c, value=v) for c, v in (("a", 0.5), ("b", 0.7)))
    )
    store.note(FIT.key, "failed", reason="RuntimeError: no luck")
    report([open_run(store.out)], store.out)
    with (store.out / "records.csv").open(newline="") as stream:
        assert [row["value"] for row in csv.DictReader(stream)] == ["0.5", "0.7"]
    page = (store.out / "leaderboard" / "leaderboard.md").read_text()
    for text in ("0.6", "–", "RuntimeError: no luck", "rank nothing", "A note."):
        assert text in page
    before = page
    report([open_run(store.out)], store.out)
    assert (store.out / "leaderboard" / "leaderboard.md").read_text() == before


def test_only_quick_ranks_nothing() -> None:
    assert any("rank nothing" in note for note in info().notes)
    other = {**RUN, "config": {**RUN["config"], "preset": "small", "note": ""}}
    assert info(other).notes == ()
    assert info().tasks == ("t",)
    assert info().splits == {"train": 7, "val": 1, "test": 2}


def test_captions_hold_what_fixes_the_numbers() -> None:
    told = info()
    assert "321 resamples" in told.interval_method
    assert (told.neighbours, told.tolerance_mm, tuple(told.controls)) == (5, 3.0, ("g",))
    held = info({**RUN, "data": {**RUN["data"], "n_held": 3}})
    assert held.splits["held"] == 3


def test_a_run_of_an_earlier_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    old = {key: value for key, value in RUN.items() if key != "controls"}
    (tmp_path / "run.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match="earlier version; give the same bench run command again"):
        read_run(tmp_path)


def test_two_generators_never_share_a_figure() -> None:
    names = ["a/b", "a b", "a-b", "../a", "blur-0.5", "ä"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert not any(set(file) & set("/ \\") for file in files)
    assert file_name("blur-0.5") == "blur-0.5"


def test_nearest_pairs_are_drawn_upright(store: Store, tmp_path: Path) -> None:
    cell = Cell("memorise", {}, tags=Tags(generator="g"))
    store.add(cell)
    axial = np.zeros((6, 4), dtype=np.float16)
    axial[5, 3] = 1.0  # the patient's right, anterior
    assert upright(axial)[0, 0] == 1.0
    with store.attempt(cell.key) as fresh:
        np.savez(
            fresh / "pairs.npz",
            synthetic=axial[None],
            train=axial[None],
            train_ids=np.array(["case-1"]),
            distance=np.array([0.5]),
        )
        store.finish(cell.key, fresh, [], {"seconds": 1.0, "environment": {"device": "cpu"}})
    reader = Reader()
    run = {**RUN, "cells": [cell.to_json()]}
    files = draw_pairs([StoredRun(store, run)], tmp_path / "leaderboard", reader)
    assert reader.left_out == []
    assert files == {"g": "nearest-g.png"}
    assert (tmp_path / "leaderboard" / "nearest-g.png").read_bytes().startswith(b"\x89PNG")


def test_the_extractor_is_named_with_its_weights() -> None:
    assert "not comparable" in extractor_text(RUN["extractor"])
    known = extractor_text(
        {"name": "medicalnet-resnet50", "preprocess": "symmetric", "sha256": "ab" * 32}
    )
    assert "symmetric" in known
    assert "medicalnet-resnet50" in known
    assert "abab" in known


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{tmp_path} holds no run"):
        read_run(tmp_path)

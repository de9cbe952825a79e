"""Several runs in one leaderboard, and what changed between two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Ran

from bench.errors import InputError
from bench.plan import Cell, Tags
from bench.records import Record
from bench.report import comparison, read_board
from bench.runs import differences, open_run, together
from bench.store import Store
from metrics.statistics import paired_gain

CASES = [f"case-{i}" for i in range(8)]
PLANES = ("axial", "sagittal", "coronal", "average")
RESAMPLES = 50


def write_run(
    out: Path,
    generators: dict[str, int],
    *,
    fid: float = 50.0,
    gain: float = 0.1,
    seed: int = 0,
    cases: int = 40,
    extractor: str = "texture",
    steps: int = 10,
    labeller: int = 0,
    skip: str = "",
) -> Path:
    """A finished run: `generators` by their version, whose FID is `fid`; one segmenter."""
    data = Cell("prepare", {"source": "f" * 64, "data": {"cases": cases, "grid": [32, 32, 32]}})
    network = Cell("labeller", {"n": labeller}, {"data": data.key}, Tags(segmenter="unet"))
    features = Cell(
        "features",
        {"extractor": "task", "part": "test"},
        {"data": data.key, "labeller": network.key},
        Tags(generator="real", label_source="real"),
    )
    floor = Cell("score", {"rows": 8}, {}, Tags(generator="real", label_source="real"))
    segmenting = {"steps": steps, "seed": seed}
    real = Cell(
        "segment",
        segmenting,
        {"data": data.key},
        Tags("", "", "unet", "liver", "R", "all", 0, seed),
    )
    cells = [data, network, features, floor, real]
    records: dict[str, list[Record]] = {
        floor.key: fids(9.0, extractor),
        real.key: dice(0.5, seed),
    }
    for name, version in generators.items():
        tags = Tags(generator=name, seed=seed, label_source="joint")
        fit = Cell("fit", {"version": version, "seed": seed}, {}, Tags(name, "fit", seed=seed))
        sample = Cell("sample", {"v": version, "seed": seed}, {"stage:fit": fit.key}, tags)
        score = Cell("score", {"rows": 8}, {"synthetic": sample.key}, tags)
        task = Cell("task-score", {}, {"of": sample.key, "by": network.key}, tags)
        both = Cell(
            "segment",
            segmenting,
            {"synthetic": sample.key},
            Tags(name, "", "unet", "liver", "R+S", "all", 1.0, seed, "joint"),
        )
        cells += [fit, sample, score, task, both]
        records[score.key] = fids(fid, extractor)
        records[both.key] = dice(0.5 + gain, seed)
        records[task.key] = [Record(metric="fid", plane="volume", value=fid / 5)]
    store = Store(out)
    store.prepare_folder()
    for cell in cells:
        store.add(cell)
        if cell.title == skip:
            continue
        with store.attempt(cell.key) as fresh:
            facts = {"seconds": 1.0, "environment": {"device": "cpu"}}
            store.finish(cell.key, fresh, records.get(cell.key, []), facts)
    run: dict[str, Any] = {
        "config": {
            "preset": "small",
            "note": "",
            "data": {"grid": [32, 32, 32], "cases": cases},
            "seeds": [seed],
            "generators": {name: {"version": v} for name, v in generators.items()},
            "segmenters": {"unet": {}},
            "tasks": [],
            "segmentation": {
                "equal": "steps",
                "tolerance_mm": 3.0,
                "training": {"steps": steps},
                "keep_weights": False,
            },
            "labeller": {"segmenter": "unet"},
            "scoring": {"resamples": RESAMPLES, "neighbours": 5, "diversity_pairs": 7},
        },
        "data": {
            **{"name": "toy", "n_train": 7, "n_val": 1, "n_test": 8, "n_held": 0},
            "tasks": [{"name": "liver", "classes": {"liver": [1]}}],
        },
        "controls": [],
        "extractor": {"name": extractor, "preprocess": "", "sha256": "", "path": str(out)},
        "cells": [cell.to_json() for cell in cells],
    }
    (out / "run.json").write_text(json.dumps(run))
    return out


def fids(value: float, extractor: str) -> list[Record]:
    common = Record(extractor=extractor, protocol="reorient", n_real=8, n_synthetic=8)
    rng = np.random.default_rng(0)  # the same real volumes are drawn in every run
    drawn = value + rng.normal(0, 1, RESAMPLES) * value / 50
    return [
        *(Record(**common, metric="fid", plane=p, value=value) for p in PLANES),
        *(
            Record(**common, metric="fid_resample", plane="average", case=str(r), value=float(v))
            for r, v in enumerate(drawn)
        ),
    ]


def dice(mean: float, seed: int) -> list[Record]:
    rng = np.random.default_rng(seed + 1)
    values = mean + rng.normal(0, 0.01 + 0.01 * mean, len(CASES))
    return [
        Record(metric="dice", case=c, value=float(v)) for c, v in zip(CASES, values, strict=True)
    ]


def test_two_runs_make_one_leaderboard_with_what_they_share_once(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", {"mine": 1})
    two = write_run(tmp_path / "b", {"other": 1}, fid=20.0)
    records, board = read_board(together([one, two]))
    assert list(board.generators["generator"]) == ["mine", "other", "real"]
    assert list(board.generators["fid_average"]) == [50.0, 20.0, 9.0]
    assert set(board.segmentation["generator"]) == {"mine", "other"}
    assert len(records[(records["metric"] == "dice") & (records["arm"] == "R")]) == len(CASES)
    assert set(board.ranks.loc[board.ranks["by"] == "fid", "generator"]) == {"mine", "other"}


def test_a_generator_trained_differently_has_its_runs_name(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", {"mine": 1})
    two = write_run(tmp_path / "wider", {"mine": 2}, fid=20.0)
    _, board = read_board(together([one, two]))
    assert list(board.generators["generator"]) == ["mine", "mine (wider)", "real"]
    assert list(board.generators["fid_average"]) == [50.0, 20.0, 9.0]
    assert set(board.segmentation["generator"]) == {"mine", "mine (wider)"}


def test_other_seeds_of_one_generator_are_its_seeds(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", {"mine": 1})
    two = write_run(tmp_path / "b", {"mine": 1}, fid=20.0, seed=1, labeller=1)
    _, board = read_board(together([one, two]))
    row = board.generators.set_index("generator").loc["mine"]
    assert (row["n_seeds"], row["fid_average"]) == (2, 35.0)
    assert board.info.seeds == (0, 1)
    # The second run's task features are those of another segmenter.
    task = board.companions[board.companions["kind"] == "task-score"]
    assert list(task.loc[task["generator"] == "mine", "value"]) == [10.0]
    assert any("Scores on task features of b are left out" in note for note in board.info.notes)


def test_what_failed_in_one_run_comes_from_the_other(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", {"mine": 1}, skip="segment unet liver R")
    two = write_run(tmp_path / "b", {"other": 1})
    _, alone = read_board([open_run(one)])
    assert alone.segmentation["dice_r"].isna().all()
    _, board = read_board(together([one, two]))
    assert board.segmentation["dice_r"].notna().all()
    assert not len(board.not_measured)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"extractor": "medicalnet"}, "different scales: name is texture and medicalnet"),
        ({"cases": 20}, "different test sets: cases is 40 and 20"),
        ({"steps": 20}, "trained or scored differently: segmentation.training.steps is 10 and 20"),
    ],
)
def test_runs_that_differ_in_what_fixes_a_number_are_refused(
    tmp_path: Path, bench: Callable[..., Ran], change: dict[str, Any], why: str
) -> None:
    one = write_run(tmp_path / "a", {"mine": 1})
    two = write_run(tmp_path / "b", {"other": 1}, **change)
    ran = bench("report", one, two)
    assert ran.code == 2
    assert why in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "a+b").exists()


def test_a_run_named_twice_is_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", {"mine": 1})
    with pytest.raises(InputError, match="named twice"):
        together([one, one / ".." / "a"])


def test_report_of_two_runs_lies_beside_the_first(
    tmp_path: Path, bench: Callable[..., Ran]
) -> None:
    one = write_run(tmp_path / "a", {"mine": 1})
    two = write_run(tmp_path / "b", {"other": 1})
    before = sorted(one.rglob("*")) + sorted(two.rglob("*"))
    ran = bench("report", one, two)
    assert ran.code == 0, ran.err
    page = (tmp_path / "a+b" / "leaderboard" / "leaderboard.html").read_text()
    assert "mine" in page
    assert "other" in page
    assert sorted(one.rglob("*")) + sorted(two.rglob("*")) == before
    assert bench("report", one, two, "--into", tmp_path / "c").code == 0
    assert (tmp_path / "c" / "records.csv").is_file()


# compare


def test_a_comparison_has_the_paired_difference(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", {"mine": 1})
    two = write_run(tmp_path / "b", {"mine": 2}, fid=40.0, gain=0.2)
    page = comparison(open_run(one), open_run(two))
    tables = {table.name: table.content for table in page.tables}
    settings = {row[0]: row[1:] for row in tables["settings"].rows}
    assert settings == {"generators.mine.version": ("1", "2")}
    fid = {row[0]: row[1:] for row in tables["fid"].rows}
    change = np.random.default_rng(0).normal(0, 1, RESAMPLES) * (40 - 50) / 50 - 10
    low, high = np.percentile(change, (2.5, 97.5))
    assert fid["mine"] == ("50.00", "40.00", f"-10.00 [{low:+.2f}, {high:+.2f}]")
    rows = {(row[2], row[3]): row[4:] for row in tables["dice"].rows}
    before, after = (pd.DataFrame(dice(mean, 0))["value"].to_numpy() for mean in (0.6, 0.7))
    gain = paired_gain(before, after)
    ends = f"[{gain.interval.low:+.4f}, {gain.interval.high:+.4f}]"
    assert rows["R+S", "mine"][2] == f"{gain.mean:+.4f} {ends}"
    assert rows["R", "–"][2].startswith("+0.0000")


def test_other_features_or_data_are_not_compared_and_said_to_be_other(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", {"mine": 1})
    two = write_run(tmp_path / "b", {"mine": 1}, extractor="medicalnet")
    (fid,) = (t.content for t in comparison(open_run(one), open_run(two)).tables if t.name == "fid")
    assert {row[3] for row in fid.rows} == {"–"}
    assert "No difference of mine: the extractor changed." in fid.notes
    three = write_run(tmp_path / "c", {"mine": 1}, cases=20)
    page = comparison(open_run(one), open_run(three))
    assert [table.name for table in page.tables] == ["settings"]
    assert "no number is compared" in str(page.blocks[-1])


def test_compare_and_show_are_plain_when_piped(tmp_path: Path, bench: Callable[..., Ran]) -> None:
    one = write_run(tmp_path / "a", {"mine": 1, "<b>[red]": 1})
    two = write_run(tmp_path / "b", {"mine": 2}, fid=40.0)
    before = sorted(one.rglob("*"))
    for ran in (bench("show", one), bench("compare", one, two)):
        assert ran.code == 0, ran.err
        assert not set(ran.out) & set("│┃━┏\x1b")
        assert max(map(len, ran.out.splitlines())) > 80  # not broken at any width
    shown = bench("show", one).out
    assert "<b>[red]" in shown
    (line,) = (text for text in shown.splitlines() if text.startswith("mine") and "8 / 8" in text)
    assert line.split("  ")[0] == "mine"
    assert sorted(one.rglob("*")) == before


def test_differences_are_of_every_nested_value() -> None:
    one = {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": {}}
    two = {"a": {"b": 1, "c": [1, 3]}, "d": "x", "f": True}
    assert differences(one, two) == [
        ("a.c", "[1, 2]", "[1, 3]"),
        ("d", "null", "x"),
        ("e", "{}", "not set"),
        ("f", "not set", "true"),
    ]

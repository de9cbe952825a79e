"""Tables from records: holes, doses, seeds, pairing, order, refusal, hostile text, files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leaderboard_cases import NAN, Made, named, page, parsed, row_of, two_by_two, under
from rich.console import Console

from bench.records import CellRow, Record, cells_frame, read_records, records_frame
from leaderboard import RunInfo, build, terminal_tables, write
from leaderboard.gain_tables import dose
from leaderboard.markdown import escape, table
from leaderboard.tables import realism, segmentation
from leaderboard.text import TextTable, one_line

# Table 1


def test_realism_has_the_order_asked_the_floor_last_and_the_best_in_bold() -> None:
    content = realism(two_by_two().board(generators=("beta", "alpha")))
    shown = named(content)
    assert list(shown.index) == ["beta", "alpha", "real training volumes (floor)"]
    assert list(shown.loc["beta"]) == ["30.00", "40.00", "50.00", "40.00", "8 / 8", "pseudo"]
    # The floor is lower everywhere and never the best.
    assert content.bold == {(1, 1), (0, 2), (1, 3), (1, 4)}


def test_generators_frame_has_the_floor_beside_every_value_and_the_costs() -> None:
    made = two_by_two()
    cost = Record(kind="sample", generator="alpha", metric="seconds_per_volume", value=1.5)
    memory = [
        Record(kind=kind, generator="alpha", metric="peak_memory_mb", value=value)
        for kind, value in (("fit", 700.0), ("sample", 300.0))
    ]
    made.records += [cost, *memory]
    frame = made.board().generators
    assert set(frame["floor_average"]) == {2.0}
    alpha = row_of(frame, generator="alpha")
    assert (alpha["seconds_per_volume"], alpha["peak_memory_mb"]) == (1.5, 700.0)
    assert (alpha["extractor"], alpha["protocol"]) == ("texture", "reorient")


def test_a_failed_generator_has_dashes_and_the_reason_of_its_fit() -> None:
    made = two_by_two()
    made.cell("fit", "gamma", status="failed", reason="The loss is nan at step 120.")
    made.cell("score", "gamma", status="blocked", reason="It needs the fit of gamma.")
    board = made.board()
    row = row_of(board.generators, generator="gamma")
    assert (row["status"], row["reason"]) == ("failed", "The loss is nan at step 120.")
    assert set(named(realism(board)).loc["gamma"]) == {"–"}
    assert "The loss is nan at step 120." in page(board)


@pytest.mark.parametrize("value", [NAN, float("inf"), None])
def test_no_average_over_a_plane_without_a_value(value: float | None) -> None:
    made = two_by_two()
    (row,) = (r for r in made.records if (r["generator"], r.get("plane")) == ("alpha", "coronal"))
    if value is None:
        made.records.remove(row)
    else:
        row["value"] = value
    shown = row_of(made.board().generators, generator="alpha")
    assert shown["fid_axial"] == 20.0
    assert pd.isna(shown["fid_coronal"])
    assert pd.isna(shown["fid_average"])
    assert shown["reason"] == "The FID has no finite value: coronal."


@pytest.mark.parametrize(
    ("column", "value"),
    [("extractor", "medicalnet-resnet50"), ("protocol", "2.5d"), ("extractor_sha256", "ff48")],
)
def test_two_extractors_or_protocols_are_refused(column: str, value: str) -> None:
    made = two_by_two()
    other: dict[str, Any] = {column: value}
    made.fid("gamma", (1.0, 2.0, 3.0), **other)
    with pytest.raises(ValueError, match=f"mix several values of '{column}'.*{value}"):
        made.board()


def test_a_value_recorded_twice_is_refused() -> None:
    made = two_by_two()
    made.dice({"a": 0.1}, "alpha", "unet")
    with pytest.raises(ValueError, match=r"two values of the Dice.*'alpha'.*'a'"):
        made.board()


def test_a_missing_column_is_refused_by_name() -> None:
    records = records_frame(two_by_two().records).drop(columns="plane")
    with pytest.raises(ValueError, match="lacks the columns plane"):
        build(records, cells_frame([]), RunInfo("phantom", "quick", "32x32x32"))


# Table 2


def test_dice_gains_and_overall_mean_by_hand() -> None:
    board = two_by_two().board(segmenters=("unet", "vnet"))
    row = row_of(board.segmentation, generator="alpha", segmenter="unet")
    assert row["dice_r"] == pytest.approx(0.7)
    assert row["dice_rs"] == pytest.approx(0.75)
    assert row["gain_relative"] == pytest.approx(100 * 0.05 / 0.7)
    assert row["gain_absolute"] == pytest.approx(0.05)
    # Means of resamples lie between 0 and 0.1; two patients are stretched far beyond.
    assert row["gain_low"] < 0 < 0.1 < row["gain_high"]
    assert row["p_value"] == row["p_holm"] == 1.0  # one gain that is not 0
    overall = row_of(board.overall, generator="alpha", task="liver")
    assert overall["dice_r"] == pytest.approx(0.65)
    assert overall["dice_rs"] == pytest.approx(0.70)
    # Of the means, not the mean of the gains (7.74).
    assert overall["gain_relative"] == pytest.approx(100 * 0.05 / 0.65)


def test_cases_are_paired_by_id_and_not_by_position() -> None:
    made = Made()
    made.dice({"a": 0.1, "b": 0.5, "c": 0.9})
    made.dice({"c": 0.92, "a": 0.12, "b": 0.52}, "g")
    row = made.board().segmentation.iloc[0]
    # Equal gains of the same patients: an interval without length.
    assert (row["gain_low"], row["gain_high"]) == (pytest.approx(0.02), pytest.approx(0.02))


def test_absent_structures_are_left_out_and_counted() -> None:
    made = Made()
    made.dice({"a": 0.5, "b": NAN, "c": 0.7})
    made.dice({"a": 0.6, "b": NAN, "c": 0.8}, "g")
    board = made.board()
    row = board.segmentation.iloc[0]
    assert (row["dice_r"], row["n_cases"], row["n_absent"]) == (pytest.approx(0.6), 2, 1)
    assert row["gain_absolute"] == pytest.approx(0.1)
    assert "liver: 1" in page(board)


def test_a_case_of_one_arm_only_is_not_in_the_gain_and_is_told() -> None:
    made = Made()
    made.dice({"a": 0.5, "b": 0.9})
    made.dice({"a": 0.6}, "g")
    row = made.board().segmentation.iloc[0]
    assert (row["n_cases"], row["n_absent"]) == (1, 0)
    assert row["gain_absolute"] == pytest.approx(0.1)
    assert row["reason"] == "Cases with a value in one arm only, left out of the gain: 1."


def test_a_structure_absent_everywhere_is_a_hole_with_its_reason() -> None:
    made = Made()
    made.dice({"a": NAN, "b": NAN})
    made.dice({"a": NAN, "b": NAN}, "g")
    board = made.board()
    row = board.segmentation.iloc[0]
    assert (row["status"], row["n_cases"], row["n_absent"]) == ("done", 0, 2)
    assert "absent from the reference of every test case" in row["reason"]
    assert len(board.not_measured) == 2


def test_a_failed_cell_is_a_dash_without_a_mean_over_it_and_its_reason_is_listed() -> None:
    made = two_by_two()
    made.dice({"a": 0.5}, segmenter="dynunet")
    reason = "CUDA out of memory at step 12."
    made.cell("segment", "alpha", "dynunet", "liver", "R+S", "all", 1.0, 3, "failed", reason)
    made.dice({"a": 0.6}, "beta", "dynunet")
    board = made.board()
    blocks = {block.title.split()[0]: named(block) for block in segmentation(board)}
    alpha, beta = blocks["alpha"], blocks["beta"]
    assert list(alpha.loc["DynUNet"]) == ["0.5000", "–", "–"]
    assert list(alpha.loc["Overall mean"]) == ["0.6000", "–", "–"]
    assert "–" not in set(beta.loc["Overall mean"])
    row = row_of(board.segmentation, generator="alpha", segmenter="dynunet")
    assert (row["status"], row["reason"]) == ("failed", f"R+S: {reason}")
    assert row[["dice_rs", "gain_relative", "gain_absolute", "n_cases"]].isna().all()
    listed = under(page(board), "Not measured")
    assert ["segment", "alpha", "DynUNet", "liver", "R+S", "3", "failed", reason] in listed


def test_a_failed_arm_r_leaves_every_gain_out_and_keeps_what_was_measured() -> None:
    made = Made()
    made.cell("segment", "", "unet", "liver", "R", "all", status="failed", reason="Timeout.")
    made.dice({"a": 0.6}, "g")
    row = made.board().segmentation.iloc[0]
    assert (row["status"], row["reason"]) == ("failed", "R: Timeout.")
    assert row["dice_rs"] == 0.6
    assert pd.isna(row["dice_r"])
    assert pd.isna(row["gain_relative"])


def test_what_a_failed_cell_recorded_before_is_not_shown() -> None:
    made = two_by_two()
    made.cells = [
        CellRow(**{**cell, "status": "failed", "reason": "Timeout."})
        if (cell["kind"], cell["generator"]) == ("segment", "alpha")
        else cell
        for cell in made.cells
    ]
    frame = made.board().segmentation
    assert frame.loc[frame["generator"] == "alpha", "dice_rs"].isna().all()


def test_a_done_cell_without_records_is_a_hole() -> None:
    made = two_by_two()
    made.cell("segment", "alpha", "unet", "vein", "R+S", "all", 1.0)
    made.dice({"a": 0.5}, task="vein")
    row = row_of(made.board().segmentation, generator="alpha", segmenter="unet", task="vein")
    assert row["status"] == "failed"
    assert "records are missing" in row["reason"]


def test_what_one_failure_blocks_is_one_row_and_failures_are_not_grouped() -> None:
    made = two_by_two()
    why = "needs label, which failed: Out of memory."
    made.cell("label", status="failed", reason="Out of memory.")
    for name in ("alpha", "beta"):
        for kind in ("fidelity", "task-score"):
            made.cell(kind, name, status="blocked", reason=why)
        for task in ("liver", "vein"):
            arm = ("unet", task, "R+S", "all", 1.0)
            made.cell("segment", name, *arm, seed=1, status="blocked", reason=why)
    made.cell("segment", "beta", "vnet", "vein", "R+S", "all", 1.0, 1, "failed", "Out of memory.")
    rows = under(page(made.board()), "Not measured")[1:]
    assert sorted(rows) == [
        ["fidelity × 2, task-score × 2, segment × 4", "alpha, beta", "U-Net", "liver, vein",
         "R+S", "0, 1", "blocked", why],
        ["label", "–", "–", "–", "–", "0", "failed", "Out of memory."],
        ["segment", "beta", "VNet", "vein", "R+S", "1", "failed", "Out of memory."],
    ]  # fmt: skip


def test_the_published_tables_stand_at_the_end() -> None:
    made = two_by_two()
    made.cell("fit", "gamma", status="failed", reason="Timeout.")
    headings = [line for line in page(made.board()).splitlines() if line.startswith("#")]
    assert headings[-4:] == [
        *("## Not measured", "## Published, other data"),
        *("### Table 1, FID", "### Table 2, Dice with S by 3D-LLDM"),
    ]


def test_seeds_that_one_arm_lacks_are_left_out_of_the_gain_and_told() -> None:
    made = Made()
    for seed, luck in ((0, 0.0), (1, 0.1)):
        made.dice({"a": 0.5 + luck, "b": 0.7 + luck}, seed=seed)
    for seed, gain in ((1, 0.02), (2, 0.5)):
        made.dice({"a": 0.6 + gain, "b": 0.8 + gain}, "g", seed=seed)
    board = made.board(seeds=(0, 1, 2))
    row = board.segmentation.iloc[0]
    assert (row["n_seeds"], row["n_cases"]) == (1, 2)
    assert row["gain_absolute"] == pytest.approx(0.02)
    assert row["reason"] == "Seeds of one arm only, left out of the gain: 0, 2."
    assert row["reason"] in page(board)
    assert not row["significant"]


def test_arms_without_a_seed_in_common_have_no_gain_and_say_so() -> None:
    made = Made()
    made.dice({"a": 0.5, "b": 0.7}, seed=0)
    made.dice({"a": 0.6, "b": 0.8}, "g", seed=1)
    board = made.board(seeds=(0, 1))
    row = board.segmentation.iloc[0]
    assert (row["n_seeds"], row["n_cases"]) == (0, 0)
    assert pd.isna(row["gain_absolute"])
    assert "Seeds of one arm only, left out of the gain: 0, 1." in page(board)


# Seeds, doses, parts of a run


def test_several_seeds_give_mean_and_spread_and_one_hole_takes_both_away() -> None:
    made = Made()
    for seed, gain in ((0, 0.1), (1, 0.3)):
        made.fid("g", (10.0 + seed, 20.0, 30.0), seed)
        made.dice({"a": 0.4, "b": 0.6}, seed=seed)
        made.dice({"a": 0.4 + gain, "b": 0.6 + gain}, "g", seed=seed)
    board = made.board(seeds=(0, 1))
    shown = named(next(segmentation(board)))
    assert shown.loc["U-Net", "liver R+S"] == "0.7000 ± 0.1414"
    assert named(realism(board)).loc["g", "Axial"] == "10.50 ± 0.71"
    row = board.segmentation.iloc[0]
    # Two cases, not four: a seed does not make another patient.
    assert (row["n_seeds"], row["n_cases"]) == (2, 2)
    assert row["gain_absolute"] == pytest.approx(0.2)

    made.cell("segment", "g", "unet", "liver", "R+S", "all", 1.0, 2, "failed", "Timeout.")
    made.cell("score", "g", seed=2, status="failed", reason="Disk full.")
    board = made.board(seeds=(0, 1, 2))
    assert named(next(segmentation(board))).loc["U-Net", "liver R+S"] == "–"
    assert set(named(realism(board)).loc["g"][:4]) == {"–"}
    assert board.segmentation.iloc[0]["reason"] == "R+S: seed 2: Timeout."


def test_doses_stand_in_a_table_of_their_own_beside_the_r_of_their_size() -> None:
    made = two_by_two()
    assert "Table 3" not in page(made.board())
    made.dice({"a": 0.30}, real="6")
    made.dice({"a": 0.33}, "alpha", real="6", ratio=2.0)
    made.dice({"a": 0.54}, "alpha", arm="S", real="0")
    made.dice({"a": 0.40}, "alpha", real="4")
    board = made.board()
    assert len(list(segmentation(board))) == 2
    shown = {row[3:6]: row[6:9] for row in dose(board).rows}
    assert shown[("R+S", "6", "2")] == ("0.3000", "0.3300", "+10.000")
    # S has no real case; it is compared with the R of all of them.
    assert shown[("S", "0", "1")] == ("0.7000", "0.5400", "-22.857")
    assert shown[("R+S", "4", "1")] == ("–", "0.4000", "–")
    row = row_of(board.segmentation, real="4")
    assert row["reason"] == "No arm R with 4 real cases was asked for."
    assert "Table 3" in page(board)


def test_without_segmenters_or_generators_a_sentence_stands_for_the_table() -> None:
    made = two_by_two()
    only = Made([r for r in made.records if r["kind"] == "score"], made.cells[:3])
    assert "No segmenter was asked for" in page(only.board())
    assert len(terminal_tables(only.board(), 200)) == 1

    real = Made()
    real.dice({"a": 0.5, "b": NAN})
    board = real.board()
    assert "so there is no Table 1" in page(board)
    assert list(named(next(segmentation(board))).columns) == ["liver R"]
    row = board.segmentation.iloc[0]
    assert (row["generator"], row["n_cases"], row["n_absent"]) == ("", 1, 1)
    assert page(Made().board())


def test_the_caption_says_how_the_numbers_were_made() -> None:
    board = two_by_two().board(notes=("ranks nothing",), splits={"training": 12, "held": 3})
    text = page(board)
    for said in ("one seed (0): no training variance", "texture, which needs no weights",
                 "protocol reorient", "same number of optimiser steps", "12 training, 3 held",
                 "ranks nothing", "pseudo: ", "absent from the reference"):  # fmt: skip
        assert said in text, said
    made = Made()
    made.fid("g", (1.0, 2.0, 3.0), extractor_sha256="ff48a622")
    assert "weights sha256 ff48a622" in page(made.board())


# Renderings


def with_costs() -> Made:
    made = two_by_two()
    for seed, seconds in enumerate((0.1, 0.2, 0.3)):  # their sum depends on its order
        made.records.append(
            Record(
                kind="sample",
                generator="alpha",
                metric="seconds_per_volume",
                seed=seed,
                value=seconds,
            )
        )
    return made


@settings(max_examples=4, deadline=None)
@given(order=st.permutations(range(len(with_costs().records))), planned=st.booleans())
def test_the_order_of_records_changes_nothing(order: list[int], planned: bool) -> None:
    made = with_costs()
    made.cells = made.cells if planned else []
    expected = made.board()
    made.records = [made.records[i] for i in order]
    board = made.board()
    assert page(board) == page(expected)
    for name in ("generators", "segmentation", "overall"):
        pd.testing.assert_frame_equal(
            getattr(board, name), getattr(expected, name), check_exact=True
        )


HOSTILE = "a|b\n| --- |\r\n<script>x</script> **b** `c` [d](e) \\| &amp; ~~f~~ \x1b[31m _g_ $h$"


def test_hostile_text_stays_in_its_cell() -> None:
    made = Made()
    made.fid(HOSTILE, (1.0, 2.0, 3.0))
    made.dice({"a": 0.5}, segmenter=HOSTILE, task=HOSTILE)
    made.dice({"a": 0.5}, HOSTILE, HOSTILE, HOSTILE)
    made.cell("fit", HOSTILE, status="failed", reason=HOSTILE)
    board = made.board(notes=(HOSTILE,))
    text = page(board)
    assert "<script" not in text
    assert "\x1b" not in text
    shown = " ".join(HOSTILE.replace("\x1b", "").split())
    tables = parsed(text)
    assert tables[0][1][0] == shown
    assert under(text, "Not measured")[1][-1] == shown
    for one in terminal_tables(board, 400):
        console = Console(width=400, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
        console.print(one)
        assert "<script>x</script> **b**" in console.export_text()


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("|`*_[]()<>&\\~!#\n")))
def test_any_text_survives_markdown(text: str) -> None:
    spaced = "".join(" " if c.isspace() else c for c in text)
    plain = " ".join("".join(c for c in spaced if c.isprintable()).split())
    (cells,) = parsed(table(TextTable("", ("x",), ((f"k{one_line(text)}k",),))))
    assert cells[1] == [f"k{plain}k"]
    assert "|" not in escape(text)


def test_every_row_of_a_markdown_table_has_the_pipes_of_its_header() -> None:
    lines = page(two_by_two().board()).splitlines()
    tables = [block for block in "\n".join(lines).split("\n\n") if block.startswith("|")]
    assert len(tables) >= 5
    for block in tables:
        assert len({line.count("|") for line in block.splitlines()}) == 1
        assert len({len(line) for line in block.splitlines()}) == 1


def test_terminal_tables_fit_the_width_and_repeat_the_names() -> None:
    made = Made()
    tasks = ("liver", "vein", "tumour", "multi-class")
    for task in tasks:
        made.dice({"a": 0.5}, task=task)
        made.dice({"a": 0.6}, "g", task=task)
    wide = terminal_tables(made.board(), 200)
    narrow = terminal_tables(made.board(), 60)
    assert (len(wide), len(narrow)) == (1, 4)
    with Path(os.devnull).open("w") as sink:
        for one in narrow:
            console = Console(width=60, record=True, file=sink)
            console.print(one)
            text = console.export_text()
            assert "0.6000" in text
            assert "U-Net" in text
            assert "+20.000" in text


def test_of_very_many_generators_a_terminal_shows_the_first_and_where_the_others_are() -> None:
    made = Made()
    names = [f"g{n:02d}" for n in range(30)]
    for name in ("", *names):
        made.dice({"a": 0.5}, name)
    shown = terminal_tables(made.board(), 200)
    titles = [str(table.title) for table in shown]
    assert len(titles) == 8
    assert "g07" in titles[-1]
    assert "22 more blocks of Table 2 are on the page." in str(shown[-1].caption)
    assert "more blocks" not in "".join(str(table.caption) for table in shown[:-1])


def test_files_round_trip(tmp_path: Path) -> None:
    made = two_by_two()
    reason = 'Bad, "quoted"; two\nlines.'
    made.cell("segment", "alpha", "dynunet", "liver", "R+S", "all", 1.0, 0, "failed", reason)
    made.dice({"a": 0.1 + 0.2}, segmenter="dynunet")
    board = made.board()
    paths = write(board, tmp_path / "new" / "leaderboard")
    tables = ["generators", "segmentation", "overall"]
    tables += ["companions", "structures", "ranks", "doses", "fits", "costs"]
    names = ["leaderboard.md", *(f"{name}.csv" for name in tables)]
    assert [path.name for path in paths[: len(names)]] == names
    assert paths[-1].name == "leaderboard.html"
    for path, name in zip(paths[1:], tables, strict=False):
        frame = getattr(board, name)
        back = pd.read_csv(
            path, keep_default_na=False, na_values={c: [""] for c in _numeric(frame)}
        )
        for column in frame.columns:
            if column in _numeric(frame):
                expected = frame[column].to_numpy("float64", na_value=NAN)
                np.testing.assert_array_equal(back[column].to_numpy("float64"), expected)
            else:
                assert list(back[column]) == list(frame[column])
    again = write(board, tmp_path / "new" / "leaderboard")
    assert sorted(path.parent.iterdir()) == sorted(again) == sorted(paths)


def _numeric(frame: pd.DataFrame) -> list[str]:
    return [c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c])]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = two_by_two().board()
    paths = write(board, tmp_path)
    before = {path: path.read_bytes() for path in paths}

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write(Made().board(), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_records_from_their_csv_give_the_same_page(tmp_path: Path) -> None:
    made = two_by_two()
    path = tmp_path / "records.csv"
    records_frame(made.records).to_csv(path, index=False)
    info = RunInfo("phantom", "quick", "32x32x32")
    board = build(read_records(path), cells_frame(made.cells), info)
    assert page(board) == page(made.board())


def test_records_of_the_first_schema_still_make_a_page() -> None:
    made = two_by_two()
    records = records_frame(made.records).drop(columns=["low", "high", "reason"])
    board = build(records, cells_frame(made.cells), RunInfo("phantom", "quick", "32x32x32"))
    assert page(board) == page(made.board())


def test_importing_the_leaderboard_does_not_import_torch() -> None:
    code = "import sys, leaderboard; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0

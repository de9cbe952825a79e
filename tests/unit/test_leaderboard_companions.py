"""The tables beside Tables 1 and 2: companions, memorisation, labels, structures, ranks, doses."""

from __future__ import annotations

import random
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from leaderboard_cases import NAN, Made, measured, named, page, parsed, row_of, two_by_two, under

from leaderboard import (
    Leaderboard,
    companion_tables,
    gain_tables,
    label_tables,
    rank_tables,
    terminal_tables,
)
from leaderboard.figures import FIGURES, dose_figure, nearest_pairs
from leaderboard.figures.canvas import png
from leaderboard.pictures import NO_PICTURES
from leaderboard.segmentation import LEVEL
from leaderboard.tables import realism, segmentation
from metrics.lesions import MIN_IOU
from metrics.memorisation import NEAR
from metrics.statistics import holm, paired_gain, wilcoxon

NEW_TABLES = ("Table 1b", "Table 1c", "Memorisation", "Labels: ", "Structures", "Table 2b", "Ranks")
TEXTURE = {"extractor": "texture", "protocol": "reorient", "plane": "average"}


@pytest.fixture(scope="module")
def full() -> Leaderboard:
    return measured().board(segmenters=("unet", "vnet"), interval_method="By ten thousand dice.")


@pytest.fixture(scope="module")
def full_page(full: Leaderboard) -> str:
    return page(full)


def test_every_new_table_is_on_the_page_and_parses(full_page: str) -> None:
    for title in NEW_TABLES:
        assert f"# {title}" in full_page, title
    assert "By ten thousand dice." in full_page
    assert "![Gain in Dice by dose](dose.png)" in full_page
    for table in parsed(full_page):
        assert len({len(row) for row in table}) == 1


def test_records_without_the_new_scores_leave_their_tables_out() -> None:
    text = page(two_by_two().board())
    for title in (*NEW_TABLES[:-1], "dose.png", "In brackets"):
        assert title not in text, title


# Table 1 and its companions


def test_the_average_has_its_interval_and_the_csv_every_plane() -> None:
    made = Made()
    made.fid("g", (10.0, 20.0, 36.0), low=8.0, high=40.25)
    board = made.board()
    assert "Average [95 % interval]" in realism(board).columns
    assert named(realism(board)).iloc[0, 3] == "22.00 [8.0, 40.2]"
    assert named(realism(board)).loc["g", "Axial"] == "10.00"
    frame = board.generators.iloc[0]
    assert (frame["fid_axial_low"], frame["fid_axial_high"]) == (8.0, 40.25)


def test_several_seeds_have_spread_and_the_mean_of_their_intervals() -> None:
    made = Made()
    for seed, low in ((0, 8.0), (1, 10.0)):
        made.fid("g", (20.0 + seed,) * 3, seed, low=low, high=30.0)
    board = made.board(seeds=(0, 1))
    assert named(realism(board)).iloc[0, 3] == "20.50 ± 0.71 [9.0, 30.0]"
    assert "With several seeds, the mean of theirs." in page(board)


def test_companions_are_of_the_average_and_the_floor_is_last(full: Leaderboard) -> None:
    shown = named(companion_tables.companions(full))
    assert list(shown.index) == ["beta", "alpha", "oracle", "real training volumes (floor)"]
    beta = ["41.00", "0.0210", "0.150", "0.600", "0.400", "0.600", "0.500", "0.840", "8 / 8"]
    assert list(shown.loc["beta"]) == beta
    row = row_of(full.companions, kind="score", generator="beta", metric="kid", plane="average")
    assert row["value"] == pytest.approx(0.021)
    assert row["extractor"] == "texture"


def test_task_features_have_a_table_of_their_own(full: Leaderboard) -> None:
    shown = named(companion_tables.task_features(full))
    assert shown.loc["alpha", "FID [95 % interval]"] == "10.00 [9.0, 11.0]"
    assert shown.loc["alpha", "n real / n synthetic"] == "8 / 8"
    assert named(realism(full)).iloc[1, 3] == "21.00 [16.0, 25.0]"


@pytest.mark.parametrize("kind", ["score", "task-score"])
def test_extractors_do_not_mix_within_a_table(kind: str) -> None:
    made = two_by_two()
    made.score(kind, "alpha", {"kid": 0.1}, **{**TEXTURE, "extractor_sha256": "aa"})
    made.score(kind, "beta", {"kid": 0.1}, **{**TEXTURE, "extractor_sha256": "bb"})
    with pytest.raises(ValueError, match=f"'{kind}' records mix several values of 'extractor_sha"):
        made.board()


def test_a_score_recorded_twice_is_refused() -> None:
    made = two_by_two()
    made.score("memorise", "alpha", {"near_copies": 0.1})
    made.score("memorise", "alpha", {"near_copies": 0.1})
    with pytest.raises(ValueError, match="two values of the 'memorise'"):
        made.board()


def test_a_value_that_cannot_be_computed_is_a_dash_with_its_reason() -> None:
    made = two_by_two()
    for name in ("alpha", "beta"):
        made.score("score", name, {"kid": 0.25, "recall": 0.5}, **TEXTURE)
    made.score("score", "alpha", {"precision": NAN}, **TEXTURE, reason="n < k.")
    made.score("score", "beta", {"precision": NAN}, **TEXTURE, reason="n < k.")
    content = companion_tables.companions(made.board())
    assert list(named(content)["Precision"]) == ["–", "–"]
    assert content.notes[-1] == "No precision of beta, alpha: n < k."
    assert "No precision of beta, alpha: n &#60; k." in page(made.board())


def test_the_reason_of_a_missing_fid_is_told() -> None:
    made = Made()
    made.fid("g", (NAN, NAN, NAN), reason="One volume is not enough.")
    board = made.board()
    assert board.generators.iloc[0]["reason"].endswith("One volume is not enough.")
    assert named(realism(board)).iloc[0, 3] == "–"


def test_a_seed_with_a_hole_takes_the_mean_away_and_p_values_are_merged() -> None:
    made = Made()
    for seed, p in ((0, 0.02), (1, 0.3)):
        made.score("memorise", "g", {"memorisation_p": p, "memorisation_ratio": 0.5 + seed}, seed)
    board = made.board(seeds=(0, 1))
    shown = named(companion_tables.memorisation(board))
    # Twice the mean of p-values is one, whatever their dependence; the mean alone is not.
    assert list(shown.loc["g"]) == ["1.000 ± 0.707", "0.320", "–"]
    made.cell("memorise", "g", seed=2, status="failed", reason="Disk full.")
    board = made.board(seeds=(0, 1, 2))
    assert set(named(companion_tables.memorisation(board)).loc["g"]) == {"–"}
    assert ["memorise", "g", "–", "–", "–", "2", "failed", "Disk full."] in under(
        page(board), "Not measured"
    )


def test_what_a_failed_cell_scored_before_is_not_shown() -> None:
    made = Made()
    made.cell("diversity", "g", status="failed", reason="Timeout.")
    made.score("diversity", "g", {"ms_ssim": 0.5})
    board = made.board()
    assert not len(board.companions)
    assert "Table 1b" not in page(board)


# Memorisation, labels, structures


def test_memorisation_labels_and_structures_by_hand(full: Leaderboard) -> None:
    assert list(named(companion_tables.memorisation(full)).loc["beta"]) == [
        *("2.40", "4.00", "0.600", "12.5 %", "0.0 %", "0.200", "12 / 8")
    ]
    shown = named(label_tables.labels(full))
    assert list(shown.loc["alpha"]) == ["0.900", "0.400", "+0.500", "8"]
    assert list(shown.index)[-1] == "real test volumes"
    rows = {row[:2]: row[2:] for row in label_tables.structures(full).rows}
    assert rows["beta", "tumour"] == (
        *("60.0 / 100", "0.310", "1.67 / 1.00", "<0.001", "40.0 % / 0.0 %", "8"),
    )
    assert row_of(full.structures, generator="beta", label="liver")["volume_ml_real"] == 100.0


def test_memorisation_on_task_features_has_a_table_of_its_own(full: Leaderboard) -> None:
    first = named(companion_tables.memorisation(full))
    task = named(companion_tables.task_memorisation(full))
    assert (first.loc["beta", "p"], task.loc["beta", "p"]) == ("0.200", "0.002")
    assert set(full.companions["kind"]) >= {"memorise", "task-memorise"}
    made = two_by_two()
    made.cell("task-memorise", "alpha", status="failed", reason="Disk full.")
    rows = under(page(made.board()), "Not measured")
    assert rows[1] == ["task-memorise", "alpha", "–", "–", "–", "0", "failed", "Disk full."]


def test_a_class_that_is_never_right_shows_among_the_classes(full: Leaderboard) -> None:
    shown = named(label_tables.labels_by_class(full))
    assert list(shown.columns) == ["liver", "tumour"]
    assert list(shown.loc["alpha"]) == ["0.900 / 0.400", "0.800 / 0.400"]
    assert "real test volumes" in shown.index


def test_the_floor_of_structures_is_its_p_alone(full: Leaderboard) -> None:
    floor = [row for row in label_tables.structures(full).rows if "floor" in row[0]]
    assert [row[1:5] for row in floor] == [
        (name, "– / 100", "0.510", "– / 1.00") for name in ("liver", "tumour")
    ]


def test_the_terminal_shows_memorisation_and_labels_between_the_tables(full: Leaderboard) -> None:
    titles = [str(table.title).split(".")[0].split(":")[0] for table in terminal_tables(full, 160)]
    names = ["Table 1", "Memorisation", "Memorisation on task features", "Labels"]
    assert titles[:4] == names
    assert set(titles[4:]) == {"Table 2"}


# Controls


def test_controls_come_after_models_and_win_nothing() -> None:
    made = Made()
    for name, fid in (("oracle", 1.0), ("beta", 5.0), ("blur-2", 9.0), ("alpha", 4.0), ("real", 1)):
        made.fid(name, (fid, fid, fid))
        if name != "real":
            made.dice({"a": 0.5}, name)
    board = made.board(generators=("blur-2", "oracle", "beta", "alpha"))
    content = realism(board)
    names = ["beta", "alpha", "blur-2", "oracle"]
    assert [row[0] for row in content.rows[:-1]] == names
    assert {row for row, _ in content.bold} == {1}
    assert [block.title.split()[0] for block in segmentation(board)] == names
    assert "**Controls**: blur-2, oracle" in page(board)


def test_controls_alone_are_compared_with_each_other() -> None:
    made = Made()
    made.fid("oracle", (1.0, 1.0, 1.0))
    made.fid("blur-2", (9.0, 9.0, 9.0))
    assert {row for row, _ in realism(made.board()).bold} == {0}


# What fixes a number, and what is missing


def test_the_page_tells_what_fixes_the_numbers() -> None:
    board = measured().board(
        neighbours=5, tolerance_mm=2.5, ms_ssim_pairs=64, splits={"train": 12, "test": 8}
    )
    text = page(board)
    for said in ("k = 5 nearest neighbours", "With 8 volumes the 5 nearest",
                 "mean of 28 pairs of 8", "Surface Dice: at a tolerance of 2.5 mm.",
                 "nearer than 0.5 times the median distance of the 8 test volumes",
                 "KID and MMD have no bias at any n", "is noise, not variety",
                 "The floor is of volumes that the labeller was trained on",
                 "not found in texture features", "training cases' median voxel size",
                 "another seed of their fit is not resampled",
                 "no synthetic label does counts as 0"):  # fmt: skip
        assert said in text, said
    many = page(measured().board(neighbours=2))
    assert "k = 2 nearest neighbours" in many
    assert "nearest are a large part" not in many
    assert (companion_tables.NEAR, gain_tables.MIN_IOU) == (NEAR, MIN_IOU)


def test_lesion_scores_tell_their_match() -> None:
    made = two_by_two()
    assert "IoU" not in page(made.board())
    made.of_case("lesion_f1", {("a", ""): 0.5})
    assert "IoU with a predicted one is" in page(made.board())


@pytest.mark.parametrize(
    ("kind", "metric", "other", "where"),
    [
        ("score", "recall", "kid", {"plane": "average"}),
        ("task-score", "recall", "kid", {"plane": "volume"}),
        ("memorise", "near_copies", "memorisation_ratio", {}),
        ("task-memorise", "near_copies", "memorisation_ratio", {}),
        ("fidelity", "label_fidelity", "label_fidelity_shuffled", {}),
        ("fidelity", "label_fidelity", "label_fidelity_shuffled", {"label": "vein"}),
        ("diversity", "ms_ssim", "", {}),
        ("structures", "structure_volume_p", "structure_volume_ml", {"label": "vein"}),
    ],
)
def test_a_score_that_has_no_number_is_a_dash_and_tells_why(
    kind: str, metric: str, other: str, where: dict[str, str]
) -> None:
    made = Made()
    made.score(kind, "g", {metric: NAN}, reason="Too few | volumes.", **where)
    made.score(kind, "g", {other: 0.25} if other else {}, **where)
    text = page(made.board())
    names = ("Table 1b", "Table 1c", "Memorisation", "Labels", "Structures")
    shown = next(under(text, name) for name in names if f"# {name}" in text)
    assert any("–" in cell for cell in shown[1][1:])
    of = f" ({where['label']})" if "label" in where else ""
    assert f" of g{of}: Too few &#124; volumes." in text
    assert "nan" not in text


def test_what_has_no_number_and_no_reason_is_told_too() -> None:
    made = Made()
    made.score("memorise", "g", {"memorisation_ratio": NAN, "near_copies": 0.0})
    notes = companion_tables.memorisation(made.board()).notes
    assert notes[-1] == "No memorisation ratio of g: The measure gave no number."


# Gains


def gained(n: int, gains: dict[str, float], seeds: tuple[int, ...] = (0,)) -> Made:
    """n patients; each generator gains about so much of each."""
    rng = np.random.default_rng(0)
    made = Made()
    for seed in seeds:
        r = {f"case-{i}": float(value) for i, value in enumerate(rng.uniform(0.4, 0.6, n))}
        made.dice(r, seed=seed)
        for name, gain in gains.items():
            made.dice({c: v + gain + rng.normal(0, 0.02) for c, v in r.items()}, name, seed=seed)
    return made


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_gains_are_those_of_the_statistics(seeds: tuple[int, ...]) -> None:
    made = gained(15, {"good": 0.05, "idle": 0.0}, seeds)
    frame = made.board(seeds=seeds).segmentation
    arms = {}
    for arm in ("", "good"):
        own = pd.DataFrame([r for r in made.records if r["generator"] == arm])
        arms[arm] = own.pivot(index="seed", columns="case", values="value").sort_index(axis=1)
    expected = paired_gain(arms[""].to_numpy(), arms["good"].to_numpy())
    row = row_of(frame, generator="good")
    assert (row["gain_absolute"], row["n_cases"]) == (pytest.approx(expected.mean), 15)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx(expected.interval)
    assert row["p_value"] == pytest.approx(expected.p_value)


def test_the_mark_needs_the_adjusted_p() -> None:
    seeds = (0, 1, 2)
    board = gained(15, {"good": 0.05, "idle": 0.0, "bad": -0.05}, seeds).board(seeds=seeds)
    frame = board.segmentation.set_index("generator")
    assert list(frame["p_holm"]) == list(holm(frame["p_value"]))
    assert list(frame["significant"]) == [True, False, True]
    shown = named(gain_tables.paired_gains(board))["liver"]
    assert [("*" in text) for text in shown[["good", "idle", "bad"]]] == [True, False, True]
    assert shown["good"].startswith("+0.0")
    assert shown["bad"].startswith("-0.0")
    assert shown["good"].endswith(f"(15), p {frame.loc['good', 'p_holm']:.3f}")


def test_one_seed_earns_no_mark_however_small_its_p() -> None:
    board = gained(15, {"good": 0.05}).board()
    assert board.segmentation["p_holm"].iloc[0] < 0.001
    assert not board.segmentation["significant"].any()
    assert "*" not in gain_tables.paired_gains(board).rows[0][2]


def test_training_luck_takes_the_mark_away() -> None:
    """Every patient gains with one seed and loses a little with another: no gain of the model."""
    made = Made()
    rng = np.random.default_rng(1)
    for seed, luck in ((0, 0.10), (1, -0.01), (2, 0.0)):
        r = {f"case-{i}": 0.5 + 0.01 * i for i in range(12)}
        made.dice(r, seed=seed)
        made.dice({c: v + luck + rng.normal(0, 1e-3) for c, v in r.items()}, "g", seed=seed)
    board = made.board(seeds=(0, 1, 2))
    row = board.segmentation.iloc[0]
    dice = pd.DataFrame(made.records).pivot_table("value", "case", "generator")
    assert wilcoxon(dice["g"] - dice[""]) < 0.001
    assert row["p_holm"] > 0.05
    assert row["gain_low"] < 0 < row["gain_high"]
    assert "*" not in gain_tables.paired_gains(board).rows[0][2]


def test_tables_without_any_gain_have_a_mark_no_more_often_than_stated() -> None:
    """Five segmenters on four tasks, every arm trained three times with luck of its own."""
    rng = np.random.default_rng(3)
    marked = 0
    for _ in range(60):
        patients = rng.normal(0.6, 0.1, (20, 1, 40))
        arms = [
            patients + rng.normal(0, 0.02, (20, 3, 1)) + rng.normal(0, 0.03, (20, 3, 40))
            for _ in range(2)
        ]
        p = [paired_gain(r, rs, n_resamples=1999).p_value for r, rs in zip(*arms, strict=True)]
        marked += bool((holm(p) < LEVEL).any())
    assert marked / 60 <= 0.1


def test_controls_cost_the_models_nothing() -> None:
    """They, and a stranger's, are a family of their own in Table 2 and in Table 3."""
    gains = {"good": 0.02, "idle": 0.0}
    controls = dict.fromkeys(("oracle", "blur-1", "noise-0.1", "stranger"), 0.01)
    alone = dosed(gained(10, gains), gains).board().segmentation
    made = dosed(gained(10, gains | controls), gains | controls)
    board = made.board(controls=("stranger",))
    both = board.segmentation
    kept = both[both["generator"].isin(gains)]
    assert len(kept) == len(alone) == 4
    assert list(kept["p_holm"]) == list(alone["p_holm"])
    for main in (True, False):
        own = both[~both["generator"].isin(gains) & ((both["ratio"] == 1.0) == main)]
        assert len(own) == 4
        assert list(own["p_holm"]) == list(holm(own["p_value"]))
    text = page(board)
    assert text.count("table's 2 of models and, apart from them, its 4 of controls") == 2
    assert "**Controls**: oracle, blur-1, noise-0.1, stranger" in text
    assert set(board.ranks["generator"]) == set(gains)
    names = list(dict.fromkeys(both["generator"]))
    assert names == ["good", "idle", "oracle", "blur-1", "noise-0.1", "stranger"]


def dosed(made: Made, gains: dict[str, float]) -> Made:
    """The same gains at twice the dose, on other cases' luck."""
    rng = np.random.default_rng(4)
    r = {row["case"]: row["value"] for row in made.records if not row.get("generator")}
    for name, gain in gains.items():
        made.dice({c: v + gain + rng.normal(0, 0.02) for c, v in r.items()}, name, ratio=2.0)
    return made


def test_other_doses_are_a_family_of_their_own() -> None:
    made = gained(12, {"good": 0.05})
    r = {f"case-{i}": 0.4 + 0.01 * i for i in range(12)}
    made.dice(r, real="6")
    for ratio, gain in ((1.0, 0.02), (2.0, 0.03)):
        made.dice({c: v + gain for c, v in r.items()}, "good", real="6", ratio=ratio)
    frame = made.board().segmentation
    assert list(frame["p_holm"]) == pytest.approx([2**-11, 2**-10, 2**-10])


def test_too_few_cases_and_a_single_seed_are_told() -> None:
    few = gained(5, {"good": 0.05}).board()
    notes = gain_tables.paired_gains(few).notes
    assert any("5 test cases cannot show a difference" in n and "0.062" in n for n in notes)
    assert any(note.startswith("One seed: no training variance.") for note in notes)
    assert next(segmentation(few)).notes[0].startswith("One seed: no training variance.")
    enough = gained(12, {"good": 0.05}, (0, 1)).board(seeds=(0, 1))
    assert not any("cannot show" in note for note in gain_tables.paired_gains(enough).notes)
    assert "One seed" not in page(enough)


# Other scores of the segmentations


def test_other_scores_are_means_over_segmenters_and_errors_do_not_cancel() -> None:
    made = Made()
    for segmenter, distance in (("unet", 2.0), ("vnet", 5.0)):
        made.dice({"a": 0.5, "b": 0.5}, segmenter=segmenter)
        made.dice({"a": 0.5, "b": 0.5}, "g", segmenter)
        for name, more in (("", 0.0), ("g", 1.0)):
            arm = {"segmenter": segmenter, "generator": name}
            made.of_case("hd95", {("a", ""): distance + more, ("b", ""): distance}, **arm)
            # Over- and underestimated within a case: its own value hides half of the errors.
            errors = {("a", "liver"): 0.2, ("a", "hcc"): -0.4, ("b", "liver"): -0.4}
            errors |= {("a", ""): -0.1, ("b", ""): -0.4}
            made.of_case("volume_error", errors, **arm)
            made.of_case("lesion_f1", {("a", "hcc"): 0.5, ("b", "hcc"): NAN}, **arm)
            dice = {("a", "liver"): 0.5, ("b", "liver"): 0.5, ("a", "hcc"): 0.5, ("b", "hcc"): NAN}
            made.of_case("dice", dice, **arm)
            made.of_case("absent_but_predicted", {("b", "hcc"): more}, **arm)
            made.of_case("missed", {("a", "liver"): 1.0, ("b", "liver"): 1.0}, **arm)
    shown = named(gain_tables.scores(made.board())).iloc[0]
    assert shown["HD95, mm"] == "3.50 / 4.00"
    assert shown["|Volume error|"] == "35.0 % / 35.0 %"
    assert shown["Lesion F1"] == "0.500 / 0.500"
    assert shown["Absent in reference"] == "1 of 4"
    assert shown["of these predicted"] == "0 / 1"
    assert shown["Missed"] == "2 / 2"
    signed = row_of(made.board().companions, metric="volume_error", arm="R", segmenter="unet")
    assert signed["value"] == pytest.approx(-0.25)

    made.cell("segment", "g", "dynunet", "liver", "R+S", "all", 1.0, 0, "failed", "Timeout.")
    assert named(gain_tables.scores(made.board())).iloc[0]["HD95, mm"] == "– / –"


# Ranks


def test_ranks_by_fid_follow_the_resamples() -> None:
    made = Made()
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 10.0, 300)
    drawn = {"a": 50 + shared, "b": 52 + shared, "c": 51 + shared + rng.normal(0, 1.0, 300)}
    for name, values in drawn.items():
        made.fid(name, (values.mean(),) * 3)
        for r, value in enumerate(values):
            made.score("score", name, {"fid_resample": value}, case=str(r), **TEXTURE)
    made.fid("no-resamples", (1.0, 1.0, 1.0))
    frame = made.board().ranks.set_index("generator")
    assert list(frame.index) == ["a", "b", "c"]
    assert list(frame["rank"]) == [1, 3, 2]
    first = np.argmin([drawn[name] for name in frame.index], axis=0)
    counted = np.bincount(first, minlength=3) / 300
    assert frame["p_first"].to_numpy() == pytest.approx(counted)
    assert frame.loc["b", "p_first"] == 0  # a is ahead of it in every resample
    assert "1 [1, 2]" in named(rank_tables.ranks(made.board())).loc["a"].to_numpy()


def test_ranks_by_gain_are_paired_and_leave_out_who_has_a_hole() -> None:
    made = gained(20, {"good": 0.08, "better": 0.10, "oracle": 0.2, "failed": 0.3})
    made.cell("segment", "failed", "vnet", "liver", "R+S", "all", 1.0, 0, "failed", "Timeout.")
    made.dice({f"case-{i}": 0.5 for i in range(20)}, segmenter="vnet")
    for name in ("good", "better", "oracle"):
        made.dice({f"case-{i}": 0.5 for i in range(20)}, name, "vnet")
    frame = made.board().ranks
    # The oracle is a control: where two models are there it does not compete.
    assert list(frame["generator"]) == ["good", "better"]
    assert list(frame["rank"]) == [2, 1]
    assert frame["p_first"].iloc[1] > 0.99
    assert frame["value"].iloc[1] == pytest.approx(0.05, abs=0.01)  # the mean of 0.10 and 0
    assert set(frame["n_cases"]) == {20}


# Doses and figures


def test_doses_are_means_over_segmenters_against_their_own_r(full: Leaderboard) -> None:
    row = row_of(full.doses, generator="alpha", task="liver", arm="R+S", real="6", ratio=2.0)
    own = full.segmentation[
        (full.segmentation["generator"] == "alpha")
        & (full.segmentation["task"] == "liver")
        & (full.segmentation["real"] == "6")
        & (full.segmentation["ratio"] == 2.0)
    ]
    assert row["gain"] == pytest.approx(own["gain_absolute"].mean())
    assert row["gain_low"] < row["gain"] < row["gain_high"]
    assert (row["n_segmenters"], row["n_cases"]) == (2, 12)
    assert "S" in set(full.doses["arm"])


def test_doses_are_a_table_beside_their_figure(full: Leaderboard, full_page: str) -> None:
    rows = under(full_page, "Gain by dose")[1:]
    assert len(rows) == len(full.doses) == 30
    gain = row_of(full.doses, generator="alpha", task="liver", arm="S")
    (shown,) = [row for row in rows if row[:3] == ["alpha", "liver", "S"]]
    told = f"{gain['gain']:+.4f} [{gain['gain_low']:+.4f}, {gain['gain_high']:+.4f}]"
    assert shown[3:] == ["0", "1", told, "12", "2"]
    assert "Points are means over the segmenters, bars 95 % intervals" in full_page
    assert "Gain by dose" not in page(two_by_two().board())


def test_the_dose_figure_is_drawn_where_there_are_doses(full: Leaderboard) -> None:
    image = read_png(png(dose_figure(full)))
    # A column per task, a row for real cases and one for ratios; ink on white.
    assert image.shape[0] > 600 < image.shape[1]
    assert 0.01 < (image < 0.99).mean() < 0.5
    assert FIGURES["dose"].wanted(full, NO_PICTURES)
    assert not FIGURES["dose"].wanted(two_by_two().board(), NO_PICTURES)


def test_the_figure_of_one_more_real_count_has_one_row_and_odd_names_do_no_harm() -> None:
    made = Made()
    for real, r in (("all", 0.5), ("6", 0.3)):
        made.dice({"a": r, "b": r}, task="$\\frac{", real=real)
        made.dice({"a": r + 0.1, "b": r + 0.2}, "_x^$", task="$\\frac{", real=real)
    one = read_png(png(dose_figure(made.board())))
    made.dice({"a": 0.7, "b": 0.6}, "_x^$", task="$\\frac{", ratio=3.0)
    two = read_png(png(dose_figure(made.board())))
    assert two.shape[0] > 1.5 * one.shape[0]


def test_the_figure_of_nearest_pairs_shows_its_slices(tmp_path: Path) -> None:
    dark, light = np.zeros((20, 30)), np.full((20, 30), 0.9)
    path = nearest_pairs([(dark, light, "case-1: 0.12"), (light, light, "$")], tmp_path / "p.png")
    image = read_png(path.read_bytes())[..., 0]
    height, width = image.shape
    left, right = image[:, : width // 2], image[:, width // 2 :]
    area = height * width / 2
    assert (left < 0.02).sum() > 0.2 * area  # one of four slices is black
    assert (right < 0.02).sum() < 0.05 * area
    assert (np.abs(right - 0.9) < 0.01).sum() > 1.8 * (np.abs(left - 0.9) < 0.01).sum()
    with pytest.raises(ValueError, match="no pairs"):
        nearest_pairs([], tmp_path / "q.png")
    with pytest.raises(ValueError, match=r"\(2, 3, 4\); expected \(H, W\)"):
        nearest_pairs([(dark, np.zeros((2, 3, 4)), "x")], tmp_path / "q.png")
    assert [file.name for file in tmp_path.iterdir()] == ["p.png"]


def read_png(content: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(BytesIO(content), format="png"))[..., :3]


# Order and imports


def test_the_order_of_the_new_records_changes_nothing(full_page: str) -> None:
    made = measured()
    random.Random(0).shuffle(made.records)
    assert page(
        made.board(segmenters=("unet", "vnet"), interval_method="By ten thousand dice.")
    ) == full_page  # fmt: skip


def test_importing_the_leaderboard_does_not_import_matplotlib() -> None:
    code = "import sys, leaderboard, leaderboard.figures; sys.exit('matplotlib' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0

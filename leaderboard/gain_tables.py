"""Gains of R+S over R as text: paired, by dose, and the scores beside Dice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from leaderboard.model import Leaderboard, RunInfo
from leaderboard.names import controls_of, shown_name
from leaderboard.segmentation import LEVEL, is_main
from leaderboard.text import (
    MISSING,
    TextTable,
    absent,
    number,
    one_line,
    percent,
    probability,
    signed,
    signed_interval,
)

Row = Mapping[Any, Any]  # of a frame

MIN_IOU = 0.1  # that of `metrics.lesions`

_SCORES = {
    "surface_dice": "Surface Dice",
    "hd95": "HD95, mm",
    "cldice": "clDice",
    "lesion_f1": "Lesion F1",
    "lesion_sensitivity": "Lesion sensitivity",
    "lesion_precision": "Lesion precision",
    "volume_error_abs": "|Volume error|",
}


_OF_GAIN = {
    *("generator", "segmenter", "task", "n_cases", "p_holm", "significant"),
    *("gain_absolute", "gain_low", "gain_high"),
}
"""Columns that `paired_gains` shows, or is ordered by."""


def paired_gains(leaderboard: Leaderboard) -> TextTable:
    """Absolute gain of every cell of Table 2 with its interval, number of cases and p."""
    main = leaderboard.segmentation[is_main(leaderboard.segmentation)]
    main = main[main["generator"] != ""]
    tasks = list(main["task"].unique())
    rows = []
    by_arm: dict[tuple[str, str], dict[str, Row]] = {}
    for row in main[[column for column in main if column in _OF_GAIN]].to_dict("records"):
        by_arm.setdefault((row["generator"], row["segmenter"]), {})[row["task"]] = row
    for (generator, segmenter), by_task in by_arm.items():
        gains = [_gain(by_task[task]) if task in by_task else MISSING for task in tasks]
        rows.append((shown_name(generator), shown_name(segmenter), *gains))
    return TextTable(
        title="Absolute gain in Dice, paired by test case: mean [95 % bootstrap interval] "
        "(cases), Holm-adjusted p",
        columns=("Generator", "Segmenter", *(one_line(task) for task in tasks)),
        rows=tuple(rows),
        names=2,
        notes=(*_gain_notes(main, leaderboard.info), *one_seed(leaderboard), *_absent_notes(main)),
    )


def dose(leaderboard: Leaderboard) -> TextTable:
    """Table 3: the arms at other numbers of real cases and other ratios than the paper's."""
    frame = leaderboard.segmentation[~is_main(leaderboard.segmentation)]
    rows = []
    for row in frame.to_dict("records"):
        generator = shown_name(row["generator"]) if row["generator"] else MISSING
        arm = (one_line(row["task"]), row["arm"], one_line(row["real"]), f"{row['ratio']:g}")
        names = (generator, shown_name(row["segmenter"]), *arm)
        rows.append((*names, *dice_cells(row), _gain(row)))
    gained = frame[frame["generator"] != ""]
    return TextTable(
        title="Table 3. Dose: Dice with other numbers of real and synthetic cases",
        columns=(
            *("Generator", "Segmenter", "Task", "Arm"),
            *("Real cases", "Synthetic / real", "R", "Arm's Dice", "gain %"),
            "Absolute gain [95 % interval] (cases), p",
        ),
        rows=tuple(rows),
        names=4,
        notes=(
            "R is trained on as many real cases as the arm; for arm S, which has none, on all.",
            *_gain_notes(gained, leaderboard.info),
            *one_seed(leaderboard),
        ),
    )


def scores(leaderboard: Leaderboard) -> TextTable:
    """The other scores of Table 2's arms, R / R+S, mean over the segmenters."""
    main = leaderboard.segmentation[is_main(leaderboard.segmentation)]
    own = leaderboard.companions[leaderboard.companions["kind"] == "segment"]
    means = _over_segmenters(own, list(main["segmenter"].unique()))
    measured = {metric for _, _, metric in means}
    shown = [metric for metric in _SCORES if metric in measured]
    rows = []
    for generator, task in dict.fromkeys(zip(main["generator"], main["task"], strict=True)):
        arms = ["", generator] if generator else [""]

        def cell(metric: str, arms: list[str] = arms, task: str = task) -> str:
            values = [means.get((arm, task, metric), float("nan")) for arm in arms]
            return " / ".join(_score(metric, value) for value in values)

        name = shown_name(generator) if generator else "Real volumes alone"
        line = [cell(metric) for metric in shown]
        absent = means.get(("", task, "absent"), means.get((generator, task, "absent")))
        counts = [MISSING] * 3
        if absent is not None and not pd.isna(absent):
            of = means.get(("", task, "structures"), means.get((generator, task, "structures")))
            pairs = [
                " / ".join(_count(means, arm, task, metric) for arm in arms)
                for metric in ("absent_but_predicted", "missed")
            ]
            counts = [f"{absent:g} of {of:g}", *pairs]
        rows.append((name, one_line(task), *line, *counts))
    counted = ("Absent in reference", "of these predicted", "Missed")
    return TextTable(
        title="Table 2b. Other scores of the segmentations: R / R+S, mean over the segmenters",
        columns=("Generator", "Task", *(_SCORES[metric] for metric in shown), *counted),
        rows=tuple(rows) if shown else (),
        names=2,
        notes=(
            *_fixed(shown, leaderboard.info),
            "Higher is better but for HD95 and |volume error| (of the reference's volume), which "
            "are means over cases and classes of the error's size. A class that the reference "
            "lacks is left out, whatever was predicted; one that only the prediction lacks has the "
            "worst value. Their numbers stand at the right: classes of test cases, mean over "
            "segmenters and seeds.",
        ),
    )


def _fixed(metrics: Iterable[str], info: RunInfo) -> tuple[str, ...]:
    """What the numbers of the scores rest on."""
    told = []
    if "surface_dice" in metrics and info.tolerance_mm:
        told.append(f"Surface Dice: at a tolerance of {info.tolerance_mm:g} mm.")
    if any(metric.startswith("lesion") for metric in metrics):
        told.append(f"Lesions: one is found where its IoU with a predicted one is >= {MIN_IOU:g}.")
    return (" ".join(told),) if told else ()


def dice_cells(row: Row) -> tuple[str, str, str]:
    """Dice of R and of the arm, with their spreads over seeds, and the relative gain."""
    return (
        number(row["dice_r"], 4, row.get("dice_r_sd", float("nan"))),
        number(row["dice_rs"], 4, row.get("dice_rs_sd", float("nan"))),
        signed(row["gain_relative"], 3),
    )


def one_seed(leaderboard: Leaderboard) -> tuple[str, ...]:
    """The note that stands under every number of segmenters trained once."""
    if len(leaderboard.info.seeds) > 1:
        return ()
    return (
        "One seed: no training variance. What another seed of the same training would change is "
        "in no interval and no p, and no gain is called significant: run several seeds.",
    )


def _gain(row: Row) -> str:
    if absent(row["gain_absolute"]):
        return MISSING
    mark = "*" if row["significant"] else ""
    told = signed_interval(row["gain_absolute"], row["gain_low"], row["gain_high"], mark)
    return f"{told} ({row['n_cases']}), p {probability(row['p_holm'])}".replace("p <", "p < ")


def _gain_notes(rows: pd.DataFrame, info: RunInfo) -> tuple[str, ...]:
    """The rule of the mark, and whether any gain could have earned it."""
    tested = rows[rows["p_holm"].notna()]
    if not len(tested):
        return ()
    control = tested["generator"].isin(controls_of(info))
    families = {"models": tested[~control], "controls": tested[control]}
    families = {name: family for name, family in families.items() if len(family)}
    if len(families) > 1:
        models, controls = map(len, families.values())
        over = f"{models} of models and, apart from them, its {controls} of controls"
        marks = "the marks of models, or of controls,"
    else:
        over, marks = str(len(tested)), "all marks of a table"
    notes = [
        f"* differs from 0: p < {LEVEL:g} and more than one seed. p is Wilcoxon's signed-rank test "
        "of the cases' gains, two-sided, gains of 0 left out, and with several seeds no smaller "
        "than what the interval over patients and seeds says; Holm-adjusted over this table's "
        f"{over}, so that of {marks} any is false with a probability of at most {LEVEL:.0%}. The "
        "interval is for new patients and, of several seeds, newly trained networks; it is not "
        "adjusted.".replace("%", " %"),
    ]
    for name, family in families.items():
        most = int(family["n_cases"].max())
        least = min(1.0, 2.0 ** (1 - most) * len(family))
        if least >= LEVEL:
            of = f" of {name}" if len(families) > 1 else ""
            notes.append(
                f"{most} test cases cannot show a difference{of} here: the least adjusted p that "
                f"{len(family)} tests of them can reach is {least:.3f}."
            )
    return tuple(notes)


def _absent_notes(main: pd.DataFrame) -> tuple[str, ...]:
    absent = main.groupby("task", sort=False)["n_absent"].max().dropna()
    told = [f"{one_line(str(task))}: {n}" for task, n in absent.items() if n > 0]
    notes = [f"Cases left out as what the task segments is absent from them: {', '.join(told)}."]
    # Where every case is absent, the cells say so among those that were not measured.
    elsewhere = (main["n_cases"] == 0) & (main["n_absent"] > 0)
    unpaired = main.loc[(main["status"] == "done") & ~elsewhere.fillna(False), "reason"]
    return tuple(notes if told else ()) + tuple(sorted({one_line(r) for r in unpaired if r}))


def _over_segmenters(
    rows: pd.DataFrame, segmenters: Iterable[str]
) -> dict[tuple[str, str, str], float]:
    """Mean by generator ("" is arm R), task and metric; nan where a segmenter left a hole."""
    table = rows.pivot(
        index=["generator", "task", "metric"], columns="segmenter", values="value"
    ).reindex(columns=list(segmenters))
    means = table.mean(axis=1, skipna=False).reset_index()
    return {(g, t, m): float(value) for g, t, m, value in means.itertuples(index=False)}


def _score(metric: str, value: float) -> str:
    if metric == "volume_error_abs":
        return percent(value)
    return number(value, 2 if metric == "hd95" else 3)


def _count(means: Mapping[tuple[str, str, str], float], arm: str, task: str, metric: str) -> str:
    """A count without a record is 0 where the arm was scored at all."""
    if (arm, task, "absent") not in means:
        return MISSING
    value = means.get((arm, task, metric), 0.0)
    return MISSING if pd.isna(value) else f"{round(value, 1):g}"

"""The tables of a leaderboard as text, in the form of the paper's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from leaderboard import published
from leaderboard.model import PLANES, REAL, Leaderboard
from leaderboard.names import display_name
from leaderboard.segmentation import is_main
from leaderboard.text import MISSING, TextTable, number, one_line, signed
from metrics.statistics import relative_gain

OVERALL = "Overall mean"
ALONE = "Real volumes alone"

Row = Mapping[Any, Any]  # of a frame


def realism(leaderboard: Leaderboard) -> TextTable:
    """Table 1: FID per plane, the best of each in bold, the floor last."""
    frame = leaderboard.generators
    rows = []
    for row in frame.to_dict("records"):
        fids = [number(row[f"fid_{p}"], 2, row[f"fid_{p}_sd"]) for p in PLANES]
        counts = MISSING if pd.isna(row["n_real"]) else f"{row['n_real']} / {row['n_synthetic']}"
        labels = one_line(str(row["label_source"])) or MISSING
        rows.append((_name(row["generator"]), *fids, counts, labels))
    return TextTable(
        title=f"Table 1. Realism: FID per plane on {_extractor(frame)} (lower is better)",
        columns=(
            "Generator",
            *(plane.capitalize() for plane in PLANES),
            "n real / n synthetic",
            "Labels from",
        ),
        rows=tuple(rows),
        bold=_best(frame),
        notes=_realism_notes(frame),
    )


def _extractor(frame: pd.DataFrame) -> str:
    """Name of the features, so that a table that travels alone still says what it measures."""
    names = [name for name in frame["extractor"] if name]
    return f"{one_line(names[0])} features" if names else "features"


def segmentation(leaderboard: Leaderboard) -> list[TextTable]:
    """Table 2, one block per generator: Dice of R and R+S and the relative gain, per task."""
    main = leaderboard.segmentation[is_main(leaderboard.segmentation)]
    sources = leaderboard.generators.set_index("generator")["label_source"].to_dict()
    blocks = []
    for generator in main["generator"].unique():
        rows = main[main["generator"] == generator]
        overall = leaderboard.overall[leaderboard.overall["generator"] == generator]
        labels = one_line(str(sources.get(generator, "")))
        blocks.append(
            dice_block(
                (_name(generator) or ALONE) + (f" (labels: {labels})" if labels else ""),
                rows,
                overall,
                main["segmenter"].unique(),
                main["task"].unique(),
                gains=generator != "",
            )
        )
    return blocks


def dice_block(
    title: str,
    rows: pd.DataFrame,
    overall: pd.DataFrame,
    segmenters: Iterable[str],
    tasks: Iterable[str],
    gains: bool = True,
) -> TextTable:
    """One block of Table 2: segmenters down, per task R, R+S and gain across.

    Args:
        title: name of the block.
        rows: ``segmenter, task, dice_r, dice_rs, gain_relative`` and, optionally, the spreads.
        overall: ``task, dice_r, dice_rs, gain_relative`` of the last row.
        segmenters, tasks: rows and columns, in their order.
        gains: False leaves R alone, where there is no generator.
    """
    tasks = list(tasks)
    cells = {(row["segmenter"], row["task"]): row for row in rows.to_dict("records")}
    means = {row["task"]: row for row in overall.to_dict("records")}
    nothing: Row = {"dice_r": float("nan"), "dice_rs": float("nan"), "gain_relative": float("nan")}

    def line(found: Iterable[Row]) -> list[str]:
        return [text for row in found for text in _dice_cells(row)[: 3 if gains else 1]]

    body = [
        (_name(segmenter), *line(cells.get((segmenter, task), nothing) for task in tasks))
        for segmenter in segmenters
    ]
    body.append((OVERALL, *line(means.get(task, nothing) for task in tasks)))
    parts = ("R", "R+S", "gain %") if gains else ("R",)
    return TextTable(
        title=title,
        columns=("Segmenter", *(f"{one_line(task)}\n{part}" for task in tasks for part in parts)),
        rows=tuple(body),
        bold=frozenset({(len(body) - 1, 0)}),
    )


def paired_gains(leaderboard: Leaderboard) -> TextTable:
    """Absolute gain of every cell of Table 2 with its interval and number of cases."""
    main = leaderboard.segmentation[is_main(leaderboard.segmentation)]
    main = main[main["generator"] != ""]
    tasks = list(main["task"].unique())
    rows = []
    for (generator, segmenter), group in main.groupby(["generator", "segmenter"], sort=False):
        by_task = {row["task"]: row for row in group.to_dict("records")}
        gains = [_interval(by_task[task]) if task in by_task else MISSING for task in tasks]
        rows.append((_name(str(generator)), _name(str(segmenter)), *gains))
    return TextTable(
        title="Absolute gain in Dice, paired by test case: mean [95 % bootstrap interval] (cases)",
        columns=("Generator", "Segmenter", *(one_line(task) for task in tasks)),
        rows=tuple(rows),
        names=2,
        notes=_absent_notes(main),
    )


def dose(leaderboard: Leaderboard) -> TextTable:
    """Table 3: the arms at other numbers of real cases and other ratios than the paper's."""
    frame = leaderboard.segmentation
    rows = []
    for row in frame[~is_main(frame)].to_dict("records"):
        names = (_name(row["generator"]) if row["generator"] else MISSING, _name(row["segmenter"]))
        arm = (one_line(row["task"]), row["arm"], one_line(row["real"]), f"{row['ratio']:g}")
        rows.append((*names, *arm, *_dice_cells(row)))
    return TextTable(
        title="Table 3. Dose: Dice with other numbers of real and synthetic cases",
        columns=(
            *("Generator", "Segmenter", "Task", "Arm"),
            *("Real cases", "Synthetic / real", "R", "Arm's Dice", "gain %"),
        ),
        rows=tuple(rows),
        names=4,
        notes=(
            "R is trained on as many real cases as the arm; for arm S, which has none, on all.",
        ),
    )


def not_measured(leaderboard: Leaderboard) -> TextTable:
    """Every cell that left a hole, and why."""
    frame = leaderboard.not_measured.copy()
    frame["arm"] = [_arm(row) for row in frame.to_dict("records")]
    together = ["kind", "generator", "status", "reason"]
    rows = []
    for _, group in frame.groupby(together, sort=False):
        across = [group[column].unique() for column in ("segmenter", "task", "arm", "seed")]
        # A failed generator blocks every cell that needs it: one row tells of all of them.
        whole = math.prod(map(len, across)) == len(group) and group["status"].iloc[0] != "failed"
        for part in [group] if whole else [group.loc[[index]] for index in group.index]:
            rows.append(_hole(part))
    return TextTable(
        title="Not measured",
        columns=("Cell", "Generator", "Segmenter", "Task", "Arm", "Seed", "Status", "Reason"),
        rows=tuple(rows),
        names=8,
    )


def published_realism() -> TextTable:
    """The paper's Table 1."""
    frame = published.table1()
    rows = [
        (_name(row["generator"]), *(number(row[f"fid_{plane}"], 2) for plane in PLANES))
        for row in frame.to_dict("records")
    ]
    return TextTable(
        title="Table 1, FID",
        columns=("Generator", *(plane.capitalize() for plane in PLANES)),
        rows=tuple(rows),
        bold=_best(frame),
    )


def published_segmentation() -> TextTable:
    """The paper's Table 2, its overall means as printed; the gains are of the printed values."""
    rows, overall = published.table2(), published.table2_overall()
    for frame in (rows, overall):
        frame["gain_relative"] = [
            relative_gain(r, rs) for r, rs in zip(frame["dice_r"], frame["dice_rs"], strict=True)
        ]
    block = dice_block(
        "Table 2, Dice with S by 3D-LLDM",
        rows,
        overall,
        rows["segmenter"].unique(),
        published.TASKS,
    )
    return replace(block, notes=(f"gain % is that of the printed means. {published.MISPRINT}",))


def _arm(row: Row) -> str:
    if not row["arm"] or (row["real"], row["ratio"]) in {("all", 0.0), ("all", 1.0)}:
        return str(row["arm"])
    return f"{row['arm']} ({row['real']} real, ratio {row['ratio']:g})"


def _hole(cells: pd.DataFrame) -> tuple[str, ...]:
    """One row of cells that differ in segmenter, task, arm or seed alone."""
    named = cells.assign(
        generator=cells["generator"].map(display_name),
        segmenter=cells["segmenter"].map(display_name),
    )
    columns = ("kind", "generator", "segmenter", "task", "arm", "seed", "status", "reason")
    values = (", ".join(map(str, named[column].unique())) for column in columns)
    return tuple(one_line(value) or MISSING for value in values)


def _name(name: str) -> str:
    return one_line(display_name(name))


def _dice_cells(row: Row) -> tuple[str, str, str]:
    return (
        number(row["dice_r"], 4, row.get("dice_r_sd", float("nan"))),
        number(row["dice_rs"], 4, row.get("dice_rs_sd", float("nan"))),
        signed(row["gain_relative"], 3),
    )


def _interval(row: Row) -> str:
    if pd.isna(row["gain_absolute"]):
        return MISSING
    low, high = signed(row["gain_low"], 4), signed(row["gain_high"], 4)
    return f"{signed(row['gain_absolute'], 4)} [{low}, {high}] ({row['n_cases']})"


def _best(frame: pd.DataFrame) -> frozenset[tuple[int, int]]:
    """The lowest FID of each plane among the generators, where there are two to choose from."""
    bold = set()
    for column, plane in enumerate(PLANES, start=1):
        # As printed: rows that read the same are equally good.
        shown = frame[f"fid_{plane}"].map("{:.2f}".format).astype("float64")
        shown = shown.where(frame["generator"] != REAL)
        if shown.count() > 1:
            bold |= {(row, column) for row in range(len(frame)) if shown.iloc[row] == shown.min()}
    return frozenset(bold)


def _realism_notes(frame: pd.DataFrame) -> tuple[str, ...]:
    notes = []
    if frame[["n_real", "n_synthetic"]].dropna().drop_duplicates().shape[0] > 1:
        notes.append("FID falls with n: rows of different n are not comparable with each other.")
    if frame["fid_average"].notna().any() and REAL not in set(frame["generator"]):
        notes.append("No floor was scored.")
    return tuple(notes)


def _absent_notes(main: pd.DataFrame) -> tuple[str, ...]:
    absent = main.groupby("task", sort=False)["n_absent"].max().dropna()
    told = [f"{one_line(str(task))}: {n}" for task, n in absent.items() if n > 0]
    notes = [f"Cases left out as what the task segments is absent from them: {', '.join(told)}."]
    unpaired = main.loc[(main["status"] == "done") & (main["n_cases"] > 0), "reason"]
    return tuple(notes if told else ()) + tuple(sorted({one_line(r) for r in unpaired if r}))

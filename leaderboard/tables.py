"""The tables of a leaderboard as text, in the form of the paper's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

import pandas as pd

from leaderboard import published
from leaderboard.gain_tables import dice_cells, one_seed
from leaderboard.model import PLANES, REAL, Leaderboard
from leaderboard.names import controls_of, display_name, shown_name
from leaderboard.segmentation import is_main
from leaderboard.text import MISSING, TextTable, interval, number, one_line
from metrics.statistics import relative_gain

OVERALL = "Overall mean"
ALONE = "Real volumes alone"

Row = Mapping[Any, Any]  # of a frame


def realism(leaderboard: Leaderboard) -> TextTable:
    """Table 1: FID per plane, the average with its interval, the best in bold, the second
    underlined, the floor last."""
    frame = leaderboard.generators
    rows = []
    for row in frame.to_dict("records"):
        fids = [number(row[f"fid_{p}"], 2, row[f"fid_{p}_sd"]) for p in PLANES[:-1]]
        value, low, high, spread = (
            row[f"fid_average{part}"] for part in ("", "_low", "_high", "_sd")
        )
        fids.append(interval(value, low, high, spread, 2))
        counts = MISSING if pd.isna(row["n_real"]) else f"{row['n_real']} / {row['n_synthetic']}"
        labels = one_line(str(row["label_source"])) or MISSING
        rows.append((shown_name(row["generator"]), *fids, counts, labels))
    return TextTable(
        title=f"Table 1. Realism: FID per plane on {_extractor(frame)} (lower is better)",
        columns=(
            "Generator",
            *(plane.capitalize() for plane in PLANES[:-1]),
            "Average" + (" [95 % interval]" if frame["fid_average_low"].notna().any() else ""),
            "n real / n synthetic",
            "Labels from",
        ),
        rows=tuple(rows),
        **_marks(frame, controls_of(leaderboard.info)),
        notes=_realism_notes(frame),
        last=int((frame["generator"] == REAL).sum()),
    )


def _extractor(frame: pd.DataFrame) -> str:
    """Name of the features, so that a table that travels alone still says what it measures."""
    names = [name for name in frame["extractor"] if name]
    return f"{one_line(names[0])} features" if names else "features"


_IN_BLOCK = {
    *("generator", "segmenter", "task"),
    *("dice_r", "dice_rs", "dice_r_sd", "dice_rs_sd", "gain_relative"),
}
"""Columns that a block of Table 2 shows, or is chosen by."""


def segmentation(leaderboard: Leaderboard) -> Iterator[TextTable]:
    """Table 2, one block per generator: Dice of R and R+S and the relative gain, per task; the best
    segmenter of each column in bold, the second underlined."""
    main = leaderboard.segmentation[is_main(leaderboard.segmentation)]
    sources = leaderboard.generators.set_index("generator")["label_source"].to_dict()
    segmenters, tasks = main["segmenter"].unique(), main["task"].unique()
    blocks, overall = _by_generator(main), _by_generator(leaderboard.overall)
    for generator, rows in blocks.items():
        labels = one_line(str(sources.get(generator, "")))
        yield dice_block(
            (shown_name(generator) or ALONE) + (f" (labels: {labels})" if labels else ""),
            rows,
            overall.get(generator, []),
            segmenters,
            tasks,
            gains=generator != "",
            notes=one_seed(leaderboard),
        )


def _by_generator(frame: pd.DataFrame) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    for row in frame[[c for c in frame if c in _IN_BLOCK]].to_dict("records"):
        rows.setdefault(row["generator"], []).append(row)
    return rows


def dice_block(
    title: str,
    rows: Iterable[Row],
    overall: Iterable[Row],
    segmenters: Iterable[str],
    tasks: Iterable[str],
    gains: bool = True,
    notes: tuple[str, ...] = (),
) -> TextTable:
    """One block of Table 2: segmenters down, per task R, R+S and gain across.

    Args:
        title: name of the block.
        rows: ``segmenter, task, dice_r, dice_rs, gain_relative`` and, optionally, the spreads.
        overall: ``task, dice_r, dice_rs, gain_relative`` of the last row.
        segmenters, tasks: rows and columns, in their order.
        gains: False leaves R alone, where there is no generator.
        notes: what stands below.
    """
    tasks = list(tasks)
    cells = {(row["segmenter"], row["task"]): row for row in rows}
    means = {row["task"]: row for row in overall}
    nothing: Row = {"dice_r": float("nan"), "dice_rs": float("nan"), "gain_relative": float("nan")}

    def line(found: Iterable[Row]) -> list[str]:
        return [text for row in found for text in dice_cells(row)[: 3 if gains else 1]]

    body = [
        (shown_name(segmenter), *line(cells.get((segmenter, task), nothing) for task in tasks))
        for segmenter in segmenters
    ]
    body.append((OVERALL, *line(means.get(task, nothing) for task in tasks)))
    parts = ("R", "R+S", "gain %") if gains else ("R",)
    marks = _best(
        {
            1 + place * len(parts) + part: [
                float(f"{cells.get((segmenter, task), nothing)[dice]:.4f}")
                for segmenter in segmenters
            ]
            for place, task in enumerate(tasks)
            for part, dice in enumerate(("dice_r", "dice_rs")[: len(parts)])
        }
    )
    return TextTable(
        title=title,
        columns=("Segmenter", *(f"{one_line(task)}\n{part}" for task in tasks for part in parts)),
        rows=tuple(body),
        bold=marks["bold"] | {(len(body) - 1, 0)},
        underlined=marks["underlined"],
        notes=notes,
        last=1,
    )


def not_measured(leaderboard: Leaderboard) -> TextTable:
    """Every cell that left a hole, and why.

    A failed one has a row of its own. The others are told together by their reason: a fit or a
    labeller that failed blocks every cell that needs it.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for cell in leaderboard.not_measured.to_dict("records"):
        groups.setdefault((cell["status"], cell["reason"]), []).append(cell)
    rows = []
    for (status, _), cells in groups.items():
        rows += [
            _hole(part) for part in ([[cell] for cell in cells] if status == "failed" else [cells])
        ]
    together = any("×" in row[0] for row in rows)
    return TextTable(
        title="Not measured",
        columns=("Cell", "Generator", "Segmenter", "Task", "Arm", "Seed", "Status", "Reason"),
        rows=tuple(rows),
        names=8,
        notes=("× is the number of cells that a row tells of.",) if together else (),
    )


def published_realism() -> TextTable:
    """The paper's Table 1."""
    frame = published.table1()
    rows = [
        (shown_name(row["generator"]), *(number(row[f"fid_{plane}"], 2) for plane in PLANES))
        for row in frame.to_dict("records")
    ]
    return TextTable(
        title="Table 1, FID",
        columns=("Generator", *(plane.capitalize() for plane in PLANES)),
        rows=tuple(rows),
        **_marks(frame),
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
        rows.to_dict("records"),
        overall.to_dict("records"),
        rows["segmenter"].unique(),
        published.TASKS,
    )
    return replace(block, notes=(f"gain % is that of the printed means. {published.MISPRINT}",))


def _arm(row: Row) -> str:
    if not row["arm"] or (row["real"], row["ratio"]) in {("all", 0.0), ("all", 1.0)}:
        return str(row["arm"])
    return f"{row['arm']} ({row['real']} real, ratio {row['ratio']:g})"


def _hole(cells: Sequence[Row]) -> tuple[str, ...]:
    """One row of cells of one status and reason; several are counted by their kind."""
    counts = Counter(cell["kind"] for cell in cells)
    kinds = ", ".join(f"{kind} × {n}" if len(cells) > 1 else kind for kind, n in counts.items())
    shown: dict[str, Callable[[Row], str]] = {
        "generator": lambda cell: display_name(cell["generator"]),
        "segmenter": lambda cell: display_name(cell["segmenter"]),
        "arm": _arm,
    }
    values = []
    for column in ("generator", "segmenter", "task", "arm", "seed", "status", "reason"):
        text = shown.get(column, lambda cell, name=column: str(cell[name]))
        values.append(", ".join(dict.fromkeys(filter(None, map(text, cells)))))
    return tuple(one_line(value) or MISSING for value in (kinds, *values))


class _Marks(TypedDict):
    bold: frozenset[tuple[int, int]]
    underlined: frozenset[tuple[int, int]]


def _marks(frame: pd.DataFrame, controls: Collection[str] = ()) -> _Marks:
    """Best and second best FID of each plane.

    Controls are no rivals of a model: they are compared where there are no models.
    """
    rivals = ~frame["generator"].isin({*controls, REAL})
    if not rivals.any():
        rivals = frame["generator"] != REAL
    columns = {
        column: -frame[f"fid_{plane}"].map("{:.2f}".format).astype("float64").where(rivals)
        for column, plane in enumerate(PLANES, start=1)
    }
    return _best(columns)


def _best(columns: Mapping[int, Iterable[float]]) -> _Marks:
    """The highest value of each column, where there are two to choose from, and the second highest,
    where there are three. Values are as printed: those that read the same are equally good.
    """
    bold, underlined = set(), set()
    for column, values in columns.items():
        shown = list(values)
        rivals = [value for value in shown if not math.isnan(value)]
        order = sorted(set(rivals), reverse=True)
        if len(rivals) > 1:
            bold |= {(row, column) for row, value in enumerate(shown) if value == order[0]}
        if len(rivals) > 2 and len(order) > 1:
            underlined |= {(row, column) for row, value in enumerate(shown) if value == order[1]}
    return {"bold": frozenset(bold), "underlined": frozenset(underlined)}


def _realism_notes(frame: pd.DataFrame) -> tuple[str, ...]:
    notes = []
    if frame[["n_real", "n_synthetic"]].dropna().drop_duplicates().shape[0] > 1:
        notes.append("FID falls with n: rows of different n are not comparable with each other.")
    if frame["fid_average"].notna().any() and REAL not in set(frame["generator"]):
        notes.append("No floor was scored.")
    return tuple(notes)

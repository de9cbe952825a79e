"""Ranks and gains by dose as text; both are means over the segmenters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leaderboard.gain_tables import one_seed
from leaderboard.model import Leaderboard
from leaderboard.names import shown_name
from leaderboard.text import MISSING, TextTable, one_line, signed_interval

Row = Mapping[Any, Any]  # of `Leaderboard.ranks`


def ranks(leaderboard: Leaderboard) -> TextTable:
    """Which generator is first, and how surely: by FID, and by gain on each task."""
    frame = leaderboard.ranks
    measures = list(dict.fromkeys(zip(frame["by"], frame["task"], strict=True)))
    cells = {(r["generator"], r["by"], r["task"]): r for r in frame.to_dict("records")}
    titles = [f"FID\n{part}" if by == "fid" else f"{one_line(task)} gain\n{part}"
              for by, task in measures for part in ("rank", "P(first)")]  # fmt: skip
    rows = []
    for generator in dict.fromkeys(frame["generator"]):
        line = [shown_name(generator)]
        for by, task in measures:
            row = cells.get((generator, by, task))
            line += [MISSING, MISSING] if row is None else [_rank(row), f"{row['p_first']:.2f}"]
        rows.append(tuple(line))
    by_fid = (
        "FID: of the three planes' average, volumes resampled, the same real ones for every "
        "generator. Ranks by FID hold for the generators as fitted here: another seed of their fit "
        "is not resampled."
    )
    by_gain = (
        "Gain: mean over segmenters of R+S over R, the same patients (and seeds) resampled for "
        "every generator."
    )
    kinds = {by for by, _ in measures}
    told = [text for by, text in (("fid", by_fid), ("dice_gain", by_gain)) if by in kinds]
    told.append(
        "Tied generators share their ranks. Controls compete where fewer than two other generators "
        "are ranked."
    )
    return TextTable(
        title="Ranks: rank [95 % bootstrap interval], share of resamples in which it is first",
        columns=("Generator", *titles),
        rows=tuple(rows),
        notes=(" ".join(told), *(one_seed(leaderboard) if "dice_gain" in kinds else ())),
    )


def doses(leaderboard: Leaderboard) -> TextTable:
    """Gain over R of every dose: what the figure draws."""
    rows = [
        (
            shown_name(row["generator"]),
            one_line(row["task"]),
            row["arm"],
            one_line(row["real"]),
            f"{row['ratio']:g}",
            signed_interval(row["gain"], row["gain_low"], row["gain_high"]),
            str(row["n_cases"]),
            str(row["n_segmenters"]),
        )
        for row in leaderboard.doses.to_dict("records")
    ]
    return TextTable(
        title="Gain by dose: absolute gain in Dice over R, mean over segmenters",
        columns=(
            *("Generator", "Task", "Arm", "Real cases", "Synthetic / real"),
            *("Gain [95 % interval]", "Test cases", "Segmenters"),
        ),
        rows=tuple(rows),
        names=3,
        notes=(
            "R is trained on as many real cases as the arm; S, which has none, is against the R of "
            "all. The intervals are not adjusted for their number. A dose is left out where one of "
            "its segmenters left a hole.",
            *one_seed(leaderboard),
        ),
    )


def _rank(row: Row) -> str:
    return f"{row['rank']:g} [{row['rank_low']:g}, {row['rank_high']:g}]"

"""The tables beside Tables 1 and 2 as text: companions, memorisation, labels, structures, ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from leaderboard.model import REAL, Leaderboard
from leaderboard.names import shown_name
from leaderboard.text import (
    MISSING,
    TextTable,
    figures,
    interval,
    number,
    one_line,
    percent,
    probability,
    signed,
)

Row = Mapping[Any, Any]  # of `Leaderboard.companions`
Shown = Callable[[Row], str]
Columns = Mapping[str, tuple[str, Shown]]  # metric -> title, and how a value is shown

_METRIC_NAMES = {
    "fid": "FID",
    "fid_extrapolated": "FID∞",
    "kid": "KID",
    "mmd_rbf": "MMD",
    "ms_ssim": "MS-SSIM",
    "memorisation_p": "p",
}


def companions(leaderboard: Leaderboard) -> TextTable:
    """Table 1b: what says how far the FID of Table 1 can be trusted; empty where unmeasured."""
    own = leaderboard.companions
    rows = own[(own["kind"] == "score") & (own["plane"] == "average") & (own["metric"] != "fid")]
    rows = pd.concat([rows, own[own["kind"] == "diversity"]])
    columns: Columns = {
        "fid_extrapolated": ("FID∞", lambda row: number(row["value"], 2, row["sd"])),
        **{m: (_METRIC_NAMES[m], _figures) for m in ("kid", "mmd_rbf")},
        **{m: (m.capitalize(), _three) for m in ("precision", "recall", "density", "coverage")},
        "ms_ssim": ("MS-SSIM", _three),
    }
    notes = (
        "Means of the three planes, on the features of Table 1. FID∞, KID, MMD: lower is better; "
        "FID∞ is extrapolated to endless n, and none of the three grows as n falls (near 0 each "
        "may be negative).",
        "Precision and density: do synthetic volumes look like real ones; recall and coverage: are "
        "the real ones all represented (higher is better). MS-SSIM: likeness of pairs within S, on "
        "voxels; in the row of real volumes, of the test volumes. Above it, S has less variety.",
    )
    return _by_generator("Table 1b. Companions of FID", rows, columns, notes)


def task_features(leaderboard: Leaderboard) -> TextTable:
    """Table 1c: the same scores on features that see anatomy, never mixed with Table 1's."""
    own = leaderboard.companions
    rows = own[(own["kind"] == "task-score") & (own["plane"] == "volume")]
    columns: Columns = {
        "fid": ("FID [95 % interval]", _fid),
        "kid": ("KID", _figures),
        **{m: (m.capitalize(), _three) for m in ("precision", "recall", "density", "coverage")},
    }
    notes = (
        "Features of the segmenter trained on the real training volumes, of the whole volume: they "
        "see anatomy, and are no scale that Table 1's can be compared with.",
    )
    title = "Table 1c. Realism on task features (FID, KID: lower is better)"
    return _by_generator(title, rows, columns, notes, counts=True)


def memorisation(leaderboard: Leaderboard) -> TextTable:
    """Do synthetic volumes lie nearer to the training volumes than test volumes do?"""
    own = leaderboard.companions
    columns: Columns = {
        "memorisation_distance": ("Distance, synthetic", _figures),
        "memorisation_distance_test": ("Distance, test", _figures),
        "memorisation_ratio": ("Synthetic / test", _three),
        "near_copies": ("Near copies", lambda row: percent(row["value"])),
        "near_copies_test": ("Near copies, test", lambda row: percent(row["value"])),
        "memorisation_p": ("p", lambda row: probability(row["value"])),
    }
    notes = (
        "Distance: median over volumes of the distance to the nearest training volume, in feature "
        "space. A ratio far below 1, or more near copies than among the test volumes, says that "
        "training cases are repeated, however good the FID; p tests that synthetic volumes lie "
        "nearer.",
    )
    return _by_generator("Memorisation", own[own["kind"] == "memorise"], columns, notes)


def labels(leaderboard: Leaderboard) -> TextTable:
    """Do a generator's labels fit its images?"""
    own = leaderboard.companions
    rows = own[(own["kind"] == "fidelity") & (own["label"] == "")]
    columns: Columns = {
        "label_fidelity": ("Dice", _three),
        "label_fidelity_shuffled": ("Dice, labels shuffled", _three),
    }
    content = _by_generator(
        "Labels: do they fit the images",
        rows,
        columns,
        (
            "Dice between a volume's label and what a segmenter trained on real volumes sees in "
            "its image, mean over classes; shuffled: with another volume's label. Labels that the "
            "image ignores differ by nothing. Pseudo labels are the segmenter's own, so they have "
            "no row.",
        ),
        real="real test volumes",
    )
    values = rows.set_index(["generator", "metric"])["value"].to_dict()
    lines = []
    for generator, line in zip(_generators(rows), content.rows, strict=True):
        pair = [values.get((generator, metric), float("nan")) for metric in columns]
        lines.append((*line, signed(pair[0] - pair[1], 3)))
    return replace(content, columns=(*content.columns, "Difference"), rows=tuple(lines))


def structures(leaderboard: Leaderboard) -> TextTable:
    """Volumes and numbers of components of each structure, synthetic against real."""
    frame = leaderboard.structures
    rows = []
    for row in frame[frame["generator"] != REAL].to_dict("records"):
        rows.append(
            (
                shown_name(row["generator"]),
                one_line(row["label"]),
                _beside(figures, row["volume_ml"], row["volume_ml_real"]),
                probability(row["volume_p"]),
                _beside(figures, row["components"], row["components_real"]),
                probability(row["components_p"]),
                _beside(percent, row["absent"], row["absent_real"]),
            )
        )
    return TextTable(
        title="Structures: synthetic / real",
        columns=(
            *("Generator", "Structure", "Volume, ml", "p of volumes"),
            *("Components", "p of components", "Volumes without it"),
        ),
        rows=tuple(rows),
        names=2,
        notes=(
            "Means over volumes. p: two-sample test, Holm-adjusted over the structures of a "
            "generator; small where synthetic structures are not distributed as real ones.",
            *_reasons(leaderboard.companions, ("structures",)),
        ),
    )


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
    return TextTable(
        title="Ranks: rank [95 % bootstrap interval], share of resamples in which it is first",
        columns=("Generator", *titles),
        rows=tuple(rows),
        notes=(
            "FID: of the three planes' average, volumes resampled, the same real ones for every "
            "generator. Gain: mean over segmenters of R+S over R, the same patients (and seeds) "
            "resampled for every generator. Tied generators share their ranks. Controls compete "
            "where fewer than two other generators are ranked.",
        ),
    )


def _by_generator(
    title: str,
    rows: pd.DataFrame,
    columns: Columns,
    notes: Sequence[str],
    counts: bool = False,
    real: str = "",
) -> TextTable:
    """Generators down, the metrics of `columns` that any of them has across."""
    found = {(r["generator"], r["metric"]): r for r in rows.to_dict("records")}
    present = [metric for metric in columns if (rows["metric"] == metric).any()]
    body = []
    for generator in _generators(rows):
        own = {m: found[generator, m] for m in present if (generator, m) in found}
        line = [columns[m][1](own[m]) if m in own else MISSING for m in present]
        name = real if real and generator == REAL else shown_name(generator)
        body.append((name, *line, *([_counts(list(own.values()))] if counts else [])))
    return TextTable(
        title=title,
        columns=(
            "Generator",
            *(columns[metric][0] for metric in present),
            *(["n real / n synthetic"] if counts else []),
        ),
        rows=tuple(body),
        notes=(*notes, *_reasons(rows, tuple(rows["kind"].unique()))),
    )


def _generators(rows: pd.DataFrame) -> list[str]:
    names = list(dict.fromkeys(rows["generator"]))
    return sorted(names, key=lambda name: name == REAL)


def _counts(rows: Sequence[Row]) -> str:
    counted = [row for row in rows if not pd.isna(row["n_real"])]
    return f"{counted[0]['n_real']} / {counted[0]['n_synthetic']}" if counted else MISSING


def _reasons(rows: pd.DataFrame, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Why there are dashes, a sentence for each reason."""
    holes = rows[rows["kind"].isin(kinds) & rows["value"].isna() & (rows["reason"] != "")]
    told = []
    for reason, group in holes.groupby("reason", sort=False):
        metrics = dict.fromkeys(_metric(metric) for metric in group["metric"])
        generators = dict.fromkeys(shown_name(name) for name in group["generator"])
        told.append(f"No {', '.join(metrics)} of {', '.join(generators)}: {one_line(str(reason))}")
    return tuple(told)


def _metric(name: str) -> str:
    return _METRIC_NAMES.get(name, name.replace("_", " "))


def _figures(row: Row) -> str:
    return figures(row["value"], row["sd"])


def _three(row: Row) -> str:
    return number(row["value"], 3, row["sd"])


def _fid(row: Row) -> str:
    return interval(row["value"], row["low"], row["high"], row["sd"], 2)


def _rank(row: Row) -> str:
    return f"{row['rank']:g} [{row['rank_low']:g}, {row['rank_high']:g}]"


def _beside(shown: Callable[[float], str], synthetic: float, real: float) -> str:
    return f"{shown(synthetic)} / {shown(real)}"

"""Tables of sets of volumes: generators down, metrics across, and why a value is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from leaderboard.model import REAL
from leaderboard.names import shown_name
from leaderboard.text import MISSING, TextTable, figures, interval, number, one_line

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


def by_generator(
    title: str,
    rows: pd.DataFrame,
    columns: Columns,
    notes: Sequence[str],
    counts: str = "",
    real: str = "",
) -> TextTable:
    """Generators down, the metrics of `columns` that any of them has across.

    Args:
        title: of the table.
        rows: of `Leaderboard.companions`.
        columns: metric to title and form.
        notes: what stands below, before the reasons of what is missing.
        counts: title of a last column, the numbers of volumes; "" leaves it out.
        real: name of the row of real volumes; "" is the floor's.
    """
    found = {(r["generator"], r["metric"]): r for r in rows.to_dict("records")}
    present = [metric for metric in columns if (rows["metric"] == metric).any()]
    body = []
    for generator in generators(rows):
        own = {m: found[generator, m] for m in present if (generator, m) in found}
        line = [columns[m][1](own[m]) if m in own else MISSING for m in present]
        name = real if real and generator == REAL else shown_name(generator)
        body.append((name, *line, *([volumes(own.values())] if counts else [])))
    return TextTable(
        title=title,
        columns=(
            "Generator",
            *(columns[metric][0] for metric in present),
            *([counts] if counts else []),
        ),
        rows=tuple(body),
        notes=(*notes, *reasons(rows)),
        last=int((rows["generator"] == REAL).any()),
    )


def generators(rows: pd.DataFrame) -> list[str]:
    """The generators as they come, the floor last."""
    names = list(dict.fromkeys(rows["generator"]))
    return sorted(names, key=lambda name: name == REAL)


def volumes(rows: Iterable[Row]) -> str:
    """``n_real / n_synthetic`` of the first row that counts, or the one of the two it has."""
    for row in rows:
        counted = [f"{row[n]}" for n in ("n_real", "n_synthetic") if not pd.isna(row[n])]
        if counted:
            return " / ".join(counted)
    return MISSING


def reasons(rows: pd.DataFrame) -> tuple[str, ...]:
    """Why there are dashes, a sentence for each reason."""
    holes = rows[rows["value"].isna() & (rows["reason"] != "")]
    told = []
    for reason, group in holes.groupby("reason", sort=False):
        metrics = dict.fromkeys(metric_name(metric) for metric in group["metric"])
        names = dict.fromkeys(shown_name(name) for name in group["generator"])
        labels = dict.fromkeys(one_line(label) for label in group["label"] if label)
        of = f" ({', '.join(labels)})" if labels else ""
        told.append(f"No {', '.join(metrics)} of {', '.join(names)}{of}: {one_line(str(reason))}")
    return tuple(told)


def metric_name(name: str) -> str:
    """A metric in words."""
    return _METRIC_NAMES.get(name, name.replace("_", " "))


def in_figures(row: Row) -> str:
    """A value of unknown size, with its spread."""
    return figures(row["value"], row["sd"])


def in_three(row: Row) -> str:
    """A value of about 1 to three decimals, with its spread."""
    return number(row["value"], 3, row["sd"])


def with_interval(row: Row) -> str:
    """A distance with its spread and interval."""
    return interval(row["value"], row["low"], row["high"], row["sd"], 2)

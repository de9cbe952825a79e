"""How the generators were trained, as text: stages down; length, cost and quality across."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from leaderboard.fits import SAMPLING
from leaderboard.model import Leaderboard
from leaderboard.names import display_name, shown_name
from leaderboard.text import MISSING, TextTable, figures, number, one_line, percent

Values = Mapping[str, float]  # metric -> value, of no label
ByLabel = Mapping[str, Mapping[str, float]]  # metric -> label -> value
NAN = float("nan")

COSTS = ("steps", "seconds", "peak_memory_mb", "seconds_per_volume")
"""Metrics that have a column."""
QUIET = ("stopped_early", "parameters")
"""Metrics that are told in a column of another, or in another table."""


def fits(leaderboard: Leaderboard) -> TextTable:
    """A row per generator and stage, its sampling last; empty where nothing was trained."""
    rows = []
    shared = False
    for (generator, stage), group in leaderboard.fits.groupby(["generator", "stage"], sort=False):
        values, by_label = _read(group)
        others = group["shared"].iloc[0]
        shared = shared or bool(others)
        name = one_line(str(stage).removeprefix(f"{generator}/"))
        also = ", ".join(display_name(other) for other in others.split(", ") if other)
        sampled = stage == SAMPLING
        rows.append(
            (
                shown_name(str(generator)),
                name + (f" (also {one_line(also)}'s)" if also else ""),
                _steps(values),
                MISSING if sampled else figures(values.get("seconds", NAN) / 60),
                figures(values.get("seconds_per_volume", NAN)),
                number(values.get("peak_memory_mb", NAN) / 1024, 2),
                _measured(values, by_label) or MISSING,
            )
        )
    return TextTable(
        title="How the generators were trained",
        columns=(
            *("Generator", "Stage", "Steps", "Minutes"),
            *("s / volume", "Peak GiB", "Measured of itself"),
        ),
        rows=tuple(rows),
        names=2,
        notes=_notes(leaderboard, shared),
    )


def _read(group: pd.DataFrame) -> tuple[Values, ByLabel]:
    values: dict[str, float] = {}
    by_label: dict[str, dict[str, float]] = {}
    columns = (group[column].tolist() for column in ("metric", "label", "value"))
    for metric, label, value in zip(*columns, strict=True):
        if label:
            by_label.setdefault(metric, {})[label] = value
        else:
            values[metric] = value
    return values, by_label


def _steps(values: Values) -> str:
    steps = values.get("steps", NAN)
    if pd.isna(steps):
        return MISSING
    return f"{steps:.0f}" + (" (stopped early)" if values.get("stopped_early") else "")


def _measured(values: Values, by_label: ByLabel) -> str:
    """Quality in words, those known first; any other metric by its name."""
    left, labels = dict(values), {metric: dict(found) for metric, found in by_label.items()}
    for metric in (*COSTS, *QUIET):
        left.pop(metric, None)
        labels.pop(metric, None)
    told = [
        *_psnr(left),
        *_codes(left),
        *_round_trip(left, labels),
        *_rejected(left),
        *(f"{_words(metric)} {figures(value)}" for metric, value in left.items()),
        *(f"{_words(metric)} {_each(found)}" for metric, found in labels.items()),
    ]
    return "; ".join(told)


def _psnr(left: dict[str, float]) -> list[str]:
    if "psnr" not in left:
        return []
    linear = left.pop("psnr_patch_pca", None)
    beside = "" if linear is None else f" (patch-PCA {number(linear, 1)})"
    return [f"PSNR {number(left.pop('psnr'), 1)} dB{beside}"]


def _codes(left: dict[str, float]) -> list[str]:
    if "codes_used" not in left:
        return []
    perplexity = left.pop("perplexity", None)
    beside = "" if perplexity is None else f" (perplexity {figures(perplexity)})"
    return [f"codes used {percent(left.pop('codes_used'))}{beside}"]


def _round_trip(left: dict[str, float], labels: dict[str, dict[str, float]]) -> list[str]:
    told = []
    for metric, words, decimals in (
        ("round_trip_dice", "round-trip Dice", 3),
        ("round_trip_components", "components changed", 2),
    ):
        mean, each = left.pop(metric, None), labels.pop(metric, {})
        if mean is None and not each:
            continue
        parts = [] if mean is None else [number(mean, decimals)]
        parts += [f"({_each(each, decimals)})"] if each else []
        told.append(f"{words} {' '.join(parts)}")
    return told


def _rejected(left: dict[str, float]) -> list[str]:
    told = []
    for metric, words in (
        ("share_rejected", "label maps rejected"),
        ("share_kept_though_rejected", "volumes whose draws all were"),
    ):
        if metric in left:
            told.append(f"{words} {percent(left.pop(metric))}")
    return told


def _each(found: Mapping[str, float], decimals: int = 3) -> str:
    return ", ".join(f"{one_line(label)} {number(v, decimals)}" for label, v in found.items())


def _words(metric: str) -> str:
    return one_line(metric.replace("_", " "))


def _notes(leaderboard: Leaderboard, shared: bool) -> tuple[str, ...]:
    notes = [
        "Minutes and peak memory are of the whole cell: encoding, validation and checkpoints are "
        "in them. Quality is that of validation cases, with the weights that are kept. Patch-PCA "
        "is a linear code of the same size, which an autoencoder has to beat. Components changed: "
        "the mean number of parts of a structure that its round trip adds or loses in a case."
    ]
    if shared:
        notes.append(
            "A stage that two generators need is trained once: its rows are one fit, whose minutes "
            "count once."
        )
    if len(leaderboard.info.seeds) > 1:
        notes.append("Means over the seeds.")
    return tuple(notes)

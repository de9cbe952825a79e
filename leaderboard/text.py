"""Numbers and names as they are printed, and the plain form every rendering shares."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Any

import pandas as pd

MISSING = "–"


@dataclass(frozen=True)
class TextTable:
    """A table as it is printed, in whatever form."""

    title: str
    columns: tuple[str, ...]  # a line break shows where a long one may be wrapped
    rows: tuple[tuple[str, ...], ...]
    names: int = 1  # columns that hold names, from the left; the others hold numbers
    bold: frozenset[tuple[int, int]] = frozenset()  # (row, column): the best
    underlined: frozenset[tuple[int, int]] = frozenset()  # the second best
    notes: tuple[str, ...] = ()
    last: int = 0  # rows at the end that compete with none above: a floor, an overall mean


def absent(value: Any) -> bool:
    """Whether a cell of a frame holds no value; of a float, the common case, without pandas."""
    return math.isnan(value) if isinstance(value, float) else bool(pd.isna(value))


def number(value: float, decimals: int, spread: float = float("nan")) -> str:
    """``0.9650``, with a spread ``0.9650 ± 0.0012``; an en dash where nothing was measured."""
    if absent(value):
        return MISSING
    shown = f"{value:.{decimals}f}"
    return shown if absent(spread) else f"{shown} ± {spread:.{decimals}f}"


def interval(value: float, low: float, high: float, spread: float, decimals: int) -> str:
    """``643.02 [598.1, 690.4]``, the ends with a digit less; as `number` without them."""
    shown = number(value, decimals, spread)
    if absent(value) or absent(low) or absent(high):
        return shown
    ends = max(decimals - 1, 0)
    return f"{shown} [{low:.{ends}f}, {high:.{ends}f}]"


def figures(value: float, spread: float = float("nan"), digits: int = 3) -> str:
    """A value of unknown size to so many significant digits: ``0.00123``, ``12.3``, ``4567``."""
    if absent(value):
        return MISSING
    if value == 0 or not math.isfinite(value) or abs(value) < 1e-5:
        return f"{value:.{digits}g}"
    return number(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))), spread)


def percent(value: float) -> str:
    """A share of [0, 1] as ``12.5 %``."""
    return MISSING if absent(value) else f"{100 * value:.1f} %"


def probability(p: float) -> str:
    """A p-value: ``0.031``, and ``<0.001`` below that."""
    if absent(p):
        return MISSING
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def signed(value: float, decimals: int) -> str:
    """A gain with its sign; an en dash where there is none."""
    return MISSING if absent(value) else f"{value:+.{decimals}f}"


def signed_interval(value: float, low: float, high: float, mark: str = "") -> str:
    """``+0.0120 [+0.0040, +0.0211]``, a gain in Dice with a mark after it, and its interval."""
    if absent(value):
        return MISSING
    ends = "" if absent(low) else f" [{signed(low, 4)}, {signed(high, 4)}]"
    return f"{signed(value, 4)}{mark}{ends}"


def one_line(text: str, longest: int = 300) -> str:
    """Text of a user on one line, without control characters (a terminal obeys them), cut short."""
    if text.isprintable() and "  " not in text and text == text.strip() and len(text) <= longest:
        return text  # as nearly all are
    plain = "".join(
        " " if char.isspace() else char
        for char in text
        if char.isspace() or unicodedata.category(char)[0] != "C"
    )
    line = " ".join(plain.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"

"""Numbers and names as they are printed, and the plain form every rendering shares."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import pandas as pd

MISSING = "–"


@dataclass(frozen=True)
class TextTable:
    """A table as it is printed: what Markdown and the terminal have in common."""

    title: str
    columns: tuple[str, ...]  # a line break shows where a long one may be wrapped
    rows: tuple[tuple[str, ...], ...]
    names: int = 1  # columns that hold names, from the left; the others hold numbers
    bold: frozenset[tuple[int, int]] = frozenset()  # (row, column)
    notes: tuple[str, ...] = ()


def number(value: float, decimals: int, spread: float = float("nan")) -> str:
    """``0.9650``, with a spread ``0.9650 ± 0.0012``; an en dash where nothing was measured."""
    if pd.isna(value):
        return MISSING
    shown = f"{value:.{decimals}f}"
    return shown if pd.isna(spread) else f"{shown} ± {spread:.{decimals}f}"


def signed(value: float, decimals: int) -> str:
    """A gain with its sign; an en dash where there is none."""
    return MISSING if pd.isna(value) else f"{value:+.{decimals}f}"


def one_line(text: str, longest: int = 300) -> str:
    """Text of a user on one line, without control characters (a terminal obeys them), cut short."""
    plain = "".join(
        " " if char.isspace() else char
        for char in text
        if char.isspace() or unicodedata.category(char)[0] != "C"
    )
    line = " ".join(plain.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"

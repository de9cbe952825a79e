"""A page with everything on it, and HTML read back by the standard library's parser."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd

from leaderboard.pictures import Pictures, Row, Volume

GRID = (10, 12, 14)
SPACING = (2.0, 1.0, 1.5)


def volume(seed: int, titles: tuple[str, ...] = ("labels",)) -> Volume:
    """A ramp along R with a bright ball, and boxes as labels."""
    rng = np.random.default_rng(seed)
    image = np.broadcast_to(np.linspace(0, 200, GRID[0])[:, None, None], GRID).astype(np.uint8)
    labels = {}
    for title in titles:
        box = np.zeros(GRID, np.uint8)
        low = rng.integers(1, 4, 3)
        box[tuple(slice(start, start + 5) for start in low)] = 1
        box[tuple(slice(start + 1, start + 3) for start in low)] = 2
        labels[title] = box
    return Volume(f"case-{seed}", image, SPACING, labels)


def pictures(hostile: str = "liver") -> Pictures:
    """Two volumes of a generator beside two real ones, a change, a curve."""
    classes = (hostile, "tumour")
    arms = ("ground truth", "R, Dice 0.500", "R+S, Dice 0.700")
    return Pictures(
        rows=(
            Row("real test volumes", (volume(0), volume(1)), classes),
            Row("alpha", (volume(2), volume(3)), classes),
        ),
        changes=(Row(f"alpha, U-Net, {hostile}: case-4", (volume(4, arms),), classes),),
        curves={
            "alpha: fit": pd.DataFrame(
                {"step": [1, 2], "name": "val/loss", "value": [2.0, 1.0]},
            )
        },
        segmenter_curves={
            arm: {
                f"U-Net, {task}": pd.DataFrame(
                    {"step": [4, 8], "name": "val/dice", "value": [0.2, top]}
                )
                for task in (hostile, "tumour")
            }
            for arm, top in (("R", 0.5), ("R+S, alpha", 0.6))
        },
    )


class Reader(HTMLParser):
    """Tables as rows of plain text, the attributes of every element, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.tables[-1][-1][-1] += data

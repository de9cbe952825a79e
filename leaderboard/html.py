"""The page as one HTML file that needs nothing else: no network, and no JavaScript for its tables.

Every text goes through the template's escaping. A content security policy, which names the
script by its sha256, lets the browser load nothing and run nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from itertools import groupby
from pathlib import PurePath
from typing import NamedTuple

from leaderboard import latex, sprites
from leaderboard.blocks import Heading, Page, Table
from leaderboard.figures.canvas import contour_colour
from leaderboard.pictures import Pictures, Row, Volume
from leaderboard.text import TextTable

SOURCE_ROWS = 120
"""Up to so many rows a table's LaTeX stands below it; longer ones have their file."""


class Group(NamedTuple):
    """Neighbouring columns under one title; "" where each has its own."""

    title: str
    columns: tuple[tuple[int, str], ...]  # (place, title)


class View(NamedTuple):
    """A label map of a volume, to be drawn over its image."""

    title: str
    sheet: str  # data URI; "" where there are no labels


class Shown(NamedTuple):
    """A volume as the script takes it apart."""

    name: str
    sheet: str
    grid: tuple[int, ...]  # (R, A, S)
    spacing: tuple[float, ...]  # mm
    across: int
    starts: tuple[int, ...]  # slices that the slider counts from: axial, coronal, sagittal
    views: tuple[View, ...]


class Shelf(NamedTuple):
    """Volumes beside one another, and their classes with the colours of the contours."""

    title: str
    classes: tuple[tuple[str, str], ...]
    volumes: tuple[Shown, ...]


def render(page: Page, images: Mapping[str, bytes], pictures: Pictures) -> str:
    """The whole file.

    Args:
        page: what stands on it.
        images: contents of the files that its images name.
        pictures: volumes to leaf through.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("leaderboard", "web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = (
        files("leaderboard").joinpath("web", name).read_text("utf-8")
        for name in ("page.js", "page.css")
    )
    chosen = sprites.fineness(pictures)
    return environment.get_template("page.html").render(
        page=page,
        kind=lambda block: type(block).__name__,
        contents=_contents(page),
        image=lambda file: sprites.data_uri(images[file], PurePath(file).suffix[1:]),
        groups=groups,
        anchor=anchor,
        source=lambda block: _source(block, page),
        shelves={
            "volumes": [_shelf(row, chosen) for row in pictures.rows],
            "changes": [_shelf(row, chosen) for row in pictures.changes],
        },
        fineness=chosen,
        script=script,
        style=style,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def groups(content: TextTable) -> list[Group]:
    """The columns of a table, by the first line of their titles where these have two."""
    numbered = [(i, *title.partition("\n")) for i, title in enumerate(content.columns)]
    return [
        Group(title, tuple((i, part if parted else own) for i, own, parted, part in found))
        for title, found in groupby(numbered, key=lambda one: one[1] if one[2] else "")
    ]


def anchor(block: Heading | Table) -> str:
    """What a link to a block names."""
    if isinstance(block, Table):
        return block.name
    words = "".join(char if char.isalnum() else " " for char in block.text.lower()).split()
    return "-".join(words[:6])


def _contents(page: Page) -> list[tuple[int, str, str]]:
    """(level, anchor, title) of every part of the page that has a title."""
    return [
        (
            block.level,
            anchor(block),
            block.text if isinstance(block, Heading) else block.content.title,
        )
        for block in page.blocks
        if isinstance(block, Heading | Table)
    ]


def _source(block: Table, page: Page) -> str:
    """The table's LaTeX, short enough to be copied by hand; else ""."""
    if len(block.content.rows) > SOURCE_ROWS:
        return ""
    return latex.files(Page(page.title, page.basis, (block,))).get(f"{block.name}.tex", "")


def _shelf(row: Row, chosen: sprites.Fineness) -> Shelf:
    classes = tuple((name, contour_colour(i)) for i, name in enumerate(row.classes))
    return Shelf(row.title, classes, tuple(_shown(volume, chosen) for volume in row.volumes))


def _shown(volume: Volume, chosen: sprites.Fineness) -> Shown:
    views = [
        View(title, sprites.data_uri(sprites.label_sheet(labels, chosen), "webp"))
        for title, labels in volume.labels.items()
    ]
    grid = sprites.coarse_grid(volume.image.shape, chosen.every)
    return Shown(
        volume.name,
        sprites.data_uri(sprites.image_sheet(volume.image, chosen), "webp"),
        grid,
        tuple(mm * chosen.every for mm in volume.spacing),
        sprites.across(grid[2]),
        _starts(volume, chosen.every),
        tuple(views) or (View("", ""),),
    )


def _starts(volume: Volume, every: int) -> tuple[int, ...]:
    """Of several label maps the slices in which the last two differ most; else the first slices."""
    if len(volume.labels) < 2:
        return (0, 0, 0)
    *_, before, after = volume.labels.values()
    differ = (before != after)[tuple(slice(n // every * every) for n in before.shape)]
    counts = (differ.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in (2, 1, 0))
    return tuple(int(count.argmax()) // every for count in counts)

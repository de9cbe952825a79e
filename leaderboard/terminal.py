"""Tables and pages for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from leaderboard import companion_tables, label_tables, tables
from leaderboard.blocks import Caution, Heading, Page, Paragraph, Table
from leaderboard.model import Leaderboard
from leaderboard.text import TextTable

MOST_BLOCKS = 8
"""Blocks of Table 2 that a run ends with; nobody reads a hundred of them in a terminal."""

_PADDING = 3  # a border and a space on either side of a column


def terminal_tables(leaderboard: Leaderboard, width: int | None = None) -> list[RichTable]:
    """Table 1, what was found of memorisation and labels, then Table 2 block by block.

    A table too wide is split between its columns, a block between its tasks. The page has the rest
    of very many blocks, and says what the brief tables mean.

    Args:
        leaderboard: what `leaderboard.build` returned.
        width: columns of the terminal; by default those of the one in use.
    """
    width = width or Console().width
    shown: list[TextTable] = []
    if len(leaderboard.generators):
        shown += _split(tables.realism(leaderboard), width)
    for content in (
        companion_tables.memorisation(leaderboard),
        companion_tables.task_memorisation(leaderboard),
        label_tables.labels(leaderboard),
    ):
        if content.rows:
            shown += _split(replace(content, notes=()), width)
    for block in islice(tables.segmentation(leaderboard), MOST_BLOCKS):
        title = f"Table 2. Dice of R and R+S: {block.title}"
        shown += _split(_grouped(replace(block, title=title)), width)
    left = leaderboard.overall["generator"].nunique() - MOST_BLOCKS
    if left > 0:
        told = f"{left} more blocks of Table 2 are on the page."
        shown[-1] = replace(shown[-1], notes=(*shown[-1].notes, told))
    return [_rich(content) for content in shown]


def print_page(page: Page, console: Console) -> None:
    """Every table of a page, with what fixes its numbers above it.

    On a terminal in its width, a table too wide in parts; elsewhere as plain text, whole.
    """
    if not console.is_terminal:
        console.print("\n".join(_plain(page)), soft_wrap=True, highlight=False, markup=False)
        return
    console.print(Text(page.title, style="bold"), Text(page.basis), sep="\n")
    for block in page.blocks:
        match block:
            case Caution(text):
                console.print(Text(text, style="bold yellow"))
            case Heading(_, text) | Paragraph(text):
                console.print(Text(f"\n{text}"))
            case Table():
                for part in _split(_grouped(block.content), console.width):
                    console.print(_rich(part))


def _plain(page: Page) -> Iterator[str]:
    """The same as lines that no other program trips over: columns parted by two spaces."""
    yield page.title
    yield page.basis
    for block in page.blocks:
        match block:
            case Caution(text) | Heading(_, text) | Paragraph(text):
                yield f"\n{text}"
            case Table():
                yield f"\n{block.content.title}"
                yield from _aligned(block.content)
                yield from block.content.notes


def _aligned(content: TextTable) -> Iterator[str]:
    lines = [tuple(title.replace("\n", " ") for title in content.columns), *content.rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            " " * (width - cell_len(text)) * (place >= content.names)
            + text
            + " " * (width - cell_len(text)) * (place < content.names)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _grouped(block: TextTable) -> TextTable:
    """The block with a task's name over the first of its columns alone."""
    titles = [title.partition("\n") for title in block.columns]
    tasks = [task for task, _, _ in titles]
    new = [i == 0 or task != tasks[i - 1] for i, task in enumerate(tasks)]
    columns = tuple(
        title if first else f"\n{part}"
        for title, first, (_, _, part) in zip(block.columns, new, titles, strict=True)
    )
    return replace(block, columns=columns)


def _split(block: TextTable, width: int) -> Iterator[TextTable]:
    """The block in parts that fit the width, each with the names and at least one other column.

    Columns under one title stay together.
    """
    wide = [
        _PADDING + max(cell_len(text) for cell in cells for text in cell.split("\n"))
        for cells in zip(block.columns, *block.rows, strict=True)
    ]
    names = list(range(block.names if block.names < len(block.columns) else 1))
    starts = [
        i for i, title in enumerate(block.columns) if i >= len(names) and not title.startswith("\n")
    ]
    ends = [*starts[1:], len(wide)]
    part: list[int] = []
    for start, end in zip(starts, ends, strict=True):
        task = list(range(start, end))
        if part and 1 + sum(wide[i] for i in names + part + task) > width:
            yield replace(_columns(block, names + part), notes=())
            part = []
        part += task
    yield _columns(block, names + part)


def _columns(block: TextTable, kept: list[int]) -> TextTable:
    return replace(
        block,
        columns=tuple(block.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in block.rows),
        bold=frozenset((row, kept.index(i)) for row, i in block.bold if i in kept),
        underlined=frozenset((row, kept.index(i)) for row, i in block.underlined if i in kept),
    )


def _style(content: TextTable, row: int, column: int) -> str:
    if (row, column) in content.bold:
        return "bold"
    return "underline" if (row, column) in content.underlined else ""


def _rich(content: TextTable) -> RichTable:
    """Cells are `Text`, so that markup in a name is shown and not obeyed."""
    caption = Text("\n".join(content.notes)) if content.notes else None
    table = RichTable(title=Text(content.title), caption=caption)
    for column, title in enumerate(content.columns):
        table.add_column(Text(title), justify="left" if column < content.names else "right")
    for row, line in enumerate(content.rows):
        styles = [_style(content, row, column) for column in range(len(line))]
        table.add_row(*(Text(text, style=style) for text, style in zip(line, styles, strict=True)))
    return table

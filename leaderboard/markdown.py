"""Pages and tables as GitHub-flavoured Markdown that no text of a user can break."""

from __future__ import annotations

import re

from leaderboard.blocks import (
    Block,
    Caution,
    Facts,
    Heading,
    Image,
    Page,
    Paragraph,
    Table,
    Viewer,
)
from leaderboard.text import TextTable

# Entities rather than backslashes: a cell then holds no pipe at all, for any reader of tables.
_SPECIAL = re.compile(r"[&<>|\\`*~$@]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|(?<=:)//")


def escape(text: str) -> str:
    """Text that shows as it is; what Markdown leaves alone (``a_b``, ``[1]``) stays readable."""
    return _SPECIAL.sub(lambda found: "".join(f"&#{ord(char)};" for char in found[0]), text)


def render(page: Page) -> str:
    """The whole page."""
    parts = [part for block in page.blocks for part in _parts(block)]
    return "\n\n".join([f"# {escape(page.title)}", *parts]) + "\n"


def _parts(block: Block) -> list[str]:
    """What a block is on the page, parted by empty lines."""
    match block:
        case Heading(level, text):
            return [f"{'#' * level} {escape(text)}"]
        case Caution(text):
            return [f"> **{escape(text)}**"]
        case Facts(rows):
            return ["\n".join(f"- **{escape(name)}**: {escape(text)}" for name, text in rows)]
        case Paragraph(text, aside):
            return [f"*{escape(text)}*" if aside else escape(text)]
        case Table(level, _, content):
            return [f"{'#' * level} {escape(content.title)}", table(content)]
        case Image(file, alt, caption):
            return [f"![{escape(alt)}]({file})", *([f"*{escape(caption)}*"] if caption else [])]
        case Viewer(_, still):
            return _parts(still)


def _cell(content: TextTable, row: int, column: int) -> str:
    text = escape(content.rows[row][column])
    if (row, column) in content.bold:
        return f"**{text}**"
    # The element that GitHub underlines.
    return f"<ins>{text}</ins>" if (row, column) in content.underlined else text


def table(content: TextTable) -> str:
    """The table and the notes below it, without its title; columns are padded to line up."""
    header = [escape(column.replace("\n", " ")) for column in content.columns]
    body = [
        [_cell(content, row, column) for column in range(len(line))]
        for row, line in enumerate(content.rows)
    ]
    widths = [max(4, *map(len, column)) for column in zip(header, *body, strict=True)]
    left = range(content.names)
    rule = [
        ":" + "-" * (width - 1) if column in left else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    lines = [line(header), line(rule), *map(line, body)]
    return "\n".join([*lines, *(f"\n{escape(note)}" for note in content.notes)])

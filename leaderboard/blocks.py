"""The parts of a page in plain text: what Markdown, HTML, LaTeX and the terminal have in common."""

from __future__ import annotations

from dataclasses import dataclass

from leaderboard.text import TextTable


@dataclass(frozen=True)
class Heading:
    """A title without a table of its own."""

    level: int  # 2 or 3; 1 is the page's
    text: str


@dataclass(frozen=True)
class Caution:
    """What a reader must know before any number."""

    text: str


@dataclass(frozen=True)
class Facts:
    """How the numbers were made: a name and a sentence or two for each choice."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    aside: bool = False  # beside the run's own numbers: of a figure, or of other data


@dataclass(frozen=True)
class Table:
    """A table under its title."""

    level: int
    name: str  # of its files and of the link to it; unique on a page
    content: TextTable
    above: str = ""  # what the page says above it and a table that travels alone must say itself
    published: bool = False  # of other data than the run's


@dataclass(frozen=True)
class Image:
    """A figure that lies beside the page."""

    file: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Viewer:
    """Volumes to leaf through in HTML, slice by slice; elsewhere the image of some slices."""

    name: str  # "volumes" or "changes"
    still: Image


Block = Heading | Caution | Facts | Paragraph | Table | Image | Viewer


@dataclass(frozen=True)
class Page:
    """A page from top to bottom."""

    title: str
    basis: str  # one line for the caption of a table that travels alone
    blocks: tuple[Block, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables in the order of the page."""
        return tuple(block for block in self.blocks if isinstance(block, Table))

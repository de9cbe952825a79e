"""The examples of the pages: run in their order, and what they print compared or written down.

    python docs/examples.py docs/tutorial.md docs/howto/*.md

runs every example of these pages, each page in a new folder, and puts what was printed into the
page. The tests run them the same way and compare. Of the fenced blocks of a page,

- ``console``: the lines after "$ " are commands, what follows is what they print; a line of "..."
  stands for any lines;
- blocks with a title are files of that name.

Digits that differ between machines (decimals, times, sizes, intervals) and the widths of tables are
not compared.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

Call = Callable[[Sequence[str]], str]
"""Runs a command in the current folder and returns what it printed; an error ends the page."""

WIDTH = "132"
"""Columns of the terminal that the pages show."""
ANY = "..."
_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
_VARYING = (
    (re.compile(r"[─━┏┓┗┛┡┩┳┻╇┴┬┼│┃└┘├┤]+"), " "),  # lines of a table
    (re.compile(r"\s+"), " "),
    (re.compile(r"(\d+ h )?\d+(\.\d+)? (s|min)\b"), "#"),
    (re.compile(r"\d+(\.\d+)? ([MG]i?B|%)"), "#"),
    (re.compile(r"\[[-+0-9., ]+\]"), "#"),  # an interval
    (re.compile(r"(< ?)?[-+]?\d+\.\d+(e-?\d+)?"), "#"),
)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str
    body: str
    start: int  # of the body in the page
    line: int


class Different(AssertionError):
    """An example printed something else than the page says."""


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order; those indented in a list are not among them."""
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(found[1], found[2] or "", found[3], found.start(3), line)


def commands(body: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, with the lines that each is said to print.

    A command goes on in the next line after a backslash.
    """
    for found in _COMMAND.finditer(body):
        yield found[1], found[2].splitlines()


def masked(lines: Sequence[str]) -> str:
    """The lines as one, without what differs between machines."""
    text = "\n".join(lines)
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return text.strip()


def agree(expected: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether the printed lines say what the expected ones do, wherever lines are broken."""
    pattern = ".*".join(re.escape(masked(part)) for part in _parts(expected))
    return re.fullmatch(pattern, masked(printed), re.DOTALL) is not None


def renewed(expected: Sequence[str], printed: Sequence[str]) -> list[str]:
    """The printed lines that `expected` shows, with "..." where it leaves some out.

    Raises:
        Different: lines beside a "..." were not printed so.
    """
    *parts, last = _parts(expected)
    if not parts:
        return list(printed)
    lines, rest = [], list(printed)
    for part in parts:
        places = range(len(rest) - len(part) + 1)
        at = next((i for i in places if masked(rest[i : i + len(part)]) == masked(part)), None)
        if at is None:
            raise Different("These lines were not printed:\n" + "\n".join(part))
        lines += [*rest[at : at + len(part)], ANY]
        rest = rest[at + len(part) :]
    return lines + rest[len(rest) - len(last) :]


def _parts(lines: Sequence[str]) -> list[list[str]]:
    """The lines before, between and after those of "..."."""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == ANY:
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def run_page(page: Path, call: Call, renew: bool = False) -> str:
    """Run the page's examples in the current folder; its text, renewed if that is asked for.

    Raises:
        Different: an example printed something else; page, line, command and both are named.
    """
    text = page.read_text(encoding="utf-8")
    bodies: list[tuple[Block, str]] = []
    for block in blocks(text):
        if block.title:
            Path(block.title).write_text(block.body, encoding="utf-8")
        elif block.language == "console":
            where = f"{page.name}, line {block.line}"
            bodies.append((block, "".join(_run(block, where, call, renew))))
    for block, body in reversed(bodies):
        text = text[: block.start] + body + text[block.start + len(block.body) :]
    return text


def _run(block: Block, where: str, call: Call, renew: bool) -> Iterator[str]:
    """The lines of a console block, with what its commands print."""
    for command, expected in commands(block.body):
        printed = call(shlex.split(command.replace("\\\n", "")))
        printed = printed.replace(f"{Path.cwd()}/", "")  # a scratch folder's name is nobody's
        lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
        if renew:
            lines = renewed(expected, lines)
        elif not agree(expected, lines):
            told = ["The page says:", *expected, "The command printed:", *lines]
            raise Different("\n".join([f"{where}: {command}", *told]))
        yield f"$ {command}\n"
        yield from (f"{line}\n" for line in lines)


def in_process_of_its_own(command: Sequence[str]) -> str:
    """What a command of this environment prints."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": WIDTH}
    ran = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=None, text=True, check=True
    )
    return ran.stdout


if __name__ == "__main__":
    for page in [Path(argument).resolve() for argument in sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            page.write_text(run_page(page, in_process_of_its_own, renew=True), encoding="utf-8")

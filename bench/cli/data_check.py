"""`bench data check`: every problem of a data set in one pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from bench.datasets.check import Checked, Problem

SHOWN = 5
"""Problems of one kind that are shown unless all are asked for."""


def check(
    path: Annotated[
        list[str],
        typer.Argument(
            help="A folder in the Decathlon layout, NAME=FOLDER of a ready data set, or a YAML "
            "file. Of several, images that they share are told too."
        ),
    ],
    preset: Annotated[
        str, typer.Option(help="The preset that the run will have: its grid matters.")
    ] = "quick",
    settings: Annotated[
        list[str], typer.Option("--set", help="As for bench run: --set data.grid=[96,96,96].")
    ] = [],  # noqa: B006
    every: Annotated[
        bool, typer.Option("--all", help=f"Show all problems of a kind, not {SHOWN} of them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All problems as JSON.")] = False,
) -> None:
    """Tell every problem of a data set: files, geometry, labels, intensities, duplicates, split.

    An error is what bench run with the same options refuses; a warning is what it takes, and what
    may mislead. Exit code 1 if there are errors.

    Example: bench data check Task08_HepaticVessel
    """
    from rich.console import Console

    from bench.cli.counting import counting
    from bench.config import resolve
    from bench.datasets.check import check as check_data
    from bench.datasets.config import PHANTOM, read_data_argument
    from bench.datasets.duplicates import SeenImages
    from bench.errors import InputError

    seen, results = SeenImages(), []
    for value in path:
        config = resolve(preset, read_data_argument(value), settings, "none", "none", {}).data
        if config.source == PHANTOM:
            raise InputError(
                f"{value} is the phantom, which is made, not read; give a folder or a YAML file "
                "that names one."
            )
        with counting() as tick:
            results.append(check_data(config, tick, seen))
    if as_json:
        typer.echo(json.dumps([_plain(result) for result in results], indent=1))
    else:
        for result in results:
            _show(Console(), result, every)
    raise typer.Exit(1 if any(result.count("error") for result in results) else 0)


def _plain(result: Checked) -> dict[str, object]:
    return {
        "name": result.name,
        "cases": result.cases,
        "errors": result.count("error"),
        "warnings": result.count("warning"),
        "problems": [asdict(problem) for problem in result.problems],
    }


def _show(console: Console, result: Checked, every: bool) -> None:
    """A table on a terminal, a line for each problem elsewhere; errors first."""
    shown, left = _some(result.problems, None if every else SHOWN)
    if console.is_terminal and shown:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
        for column in ("severity", "case", "about", "problem"):
            table.add_column(column, overflow="fold", no_wrap=column == "severity")
        for p in shown:
            style = "red" if p.severity == "error" else "yellow"
            table.add_row(f"[{style}]{p.severity}[/]", escape(p.case), p.check, escape(p.text))
        console.print(table)
    else:
        for p in shown:
            where = f" {p.case}:" if p.case else ""
            _say(console, f"{p.severity}:{where} {p.text}")
    for (severity, what), count in left.items():
        _say(console, f"{severity}: {count} more about {what}; --all shows them.")
    errors, warnings = result.count("error"), result.count("warning")
    _say(
        console,
        f"{result.name}: {_number(result.cases, 'case')} read, {_number(errors, 'error')}, "
        f"{_number(warnings, 'warning')}.",
    )


def _some(
    problems: Sequence[Problem], most: int | None
) -> tuple[list[Problem], Counter[tuple[str, str]]]:
    """At most `most` problems of each severity and kind, errors first, and how many are left."""
    seen: Counter[tuple[str, str]] = Counter()
    shown, left = [], Counter[tuple[str, str]]()
    for p in sorted(problems, key=lambda p: p.severity):
        kind = (p.severity, p.check)
        seen[kind] += 1
        if most is None or seen[kind] <= most:
            shown.append(p)
        else:
            left[kind] += 1
    return shown, left


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)

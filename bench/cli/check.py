"""`bench check`: hold plug-ins against their contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.complete import plugin_names
from bench.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.contract.requirement import Finding


def check(
    plugins: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of plug-ins, or Python files that define some.",
            autocompletion=plugin_names,
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every plug-in that is installed or in a --plugin file.")
    ] = False,
    plugin: Annotated[
        list[Path], typer.Option("--plugin", help="Plug-in file to load first; repeatable.")
    ] = [],  # noqa: B006
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="Change the plug-in's configuration, to make it small: --set width=4. Repeatable.",
        ),
    ] = [],  # noqa: B006
    weights: Annotated[
        Path | None, typer.Option(help="File of weights, for an extractor that needs one.")
    ] = None,
) -> None:
    """Check that a plug-in keeps its contract, and say what to mend.

    Example: bench check my_model.py

    A generator or segmenter takes a few steps on tiny phantoms on the CPU: shapes, ranges, labels,
    determinism, resumption, another process. Exit code 1 if a requirement is not met.
    """
    import tempfile

    from rich.console import Console

    from bench.contract.check import check as judged
    from bench.contract.check import every_plugin, plugins_of
    from bench.registry import load_plugin

    if all_ == bool(plugins):
        raise InputError("Give bench check the name or file of a plug-in, or --all.")
    for path in plugin:
        load_plugin(path)
    found = [one for asked in plugins or [] for one in plugins_of(asked)]
    found = list(dict.fromkeys(found)) or every_plugin()
    given = [Path(asked) for asked in plugins or [] if Path(asked).is_file()]
    console, failed = Console(), 0
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:
        for one in found:
            say(console, f"{one.name}, {one.kind} ({one.source})", "bold")
            findings = []
            for finding in judged(one, Path(folder), (*plugin, *given), settings, weights):
                show(console, finding)
                findings.append(finding)
            failed += summary(console, findings)
    if failed:
        raise typer.Exit(1)


MARKS = {"pass": ("pass", "green"), "fail": ("FAIL", "bold red"), "skipped": ("skip", "yellow")}


def show(console: Console, finding: Finding) -> None:
    """A line, and of what is not met all that helps to mend it."""
    mark, style = MARKS[finding.status]
    note = {"pass": finding.expected, "skipped": finding.found}.get(finding.status, "")
    console.print(f"  {mark}  ", style=style, end="")
    say(console, f"{finding.name:<18}{note}".rstrip())
    if finding.status != "fail":
        return
    for title in ("expected", "found", "where", "mend"):
        if text := getattr(finding, title):
            say(console, f"          {title:<10}{text}")


def summary(console: Console, findings: list[Finding]) -> int:
    """The closing line; how many requirements are not met."""
    count = {status: sum(f.status == status for f in findings) for status in MARKS}
    seconds = sum(finding.seconds for finding in findings)
    skipped = f", {count['skipped']} not checked" if count["skipped"] else ""
    say(
        console,
        f"{count['pass']} requirements are met, {count['fail']} are not{skipped}; "
        f"{seconds:.0f} s.\n",
    )
    return count["fail"]


def say(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

"""Every command's help ends with an example that the command line takes."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from bench.cli.main import app


def commands(group: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by the words that call it."""
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*path, name))
        else:
            found[(*path, name)] = command
    return found


ROOT: Any = typer.main.get_command(app)
COMMANDS = commands(ROOT)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_example_of_a_command_is_one_of_it(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    examples = re.findall(r"^Example: bench (.+)$", command.help or "", re.MULTILINE)
    assert len(examples) == 1
    given = shlex.split(examples[0])
    assert tuple(given[: len(words)]) == words
    command.make_context("bench", given[len(words) :])  # parses, and runs nothing


def test_the_commands_are_known() -> None:
    assert {words[0] for words in COMMANDS} >= {"run", "new", "check", "doctor", "estimate"}

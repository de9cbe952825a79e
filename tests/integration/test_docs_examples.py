"""The pages of docs/: their examples print what they say, and what they name exists."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from conftest import ROOT, Ran, restored
from typer.core import TyperGroup
from typer.main import get_command

from bench.cli.main import app
from bench.datasets.config import DataConfig, read_data_argument
from bench.engine.config import EngineConfig, read_engine

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "adr")
EVERY = [ROOT / "README.md", *PAGES]
COMMAND: Any = get_command(app)
UsageError = typer.BadParameter.__bases__[0]
RUN = [page for page in PAGES if "```console" in page.read_text(encoding="utf-8")]


def names(pages: Sequence[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def load_examples() -> ModuleType:
    spec = importlib.util.spec_from_file_location("examples", DOCS / "examples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


examples = load_examples()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=names(RUN))
def test_a_page_prints_what_it_says(
    page: Path, bench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", examples.WIDTH)
    monkeypatch.setenv("LC_ALL", "C")

    def call(command: Sequence[str]) -> str:
        if command[0] == "bench":
            gc.freeze()  # every cell collects garbage, which need not look at all modules
            with restored():  # a new process knows no plug-in files
                ran = bench(*command[1:])
            assert ran.code == 0, f"{command}: {ran.err}"
            return ran.out
        program = sys.executable if command[0] == "python" else command[0]
        return subprocess.run(
            [program, *command[1:]], check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    importlib.import_module("monai.networks.nets")  # before memory is frozen
    try:
        examples.run_page(page, call)
    finally:
        gc.unfreeze()


def command_lines(text: str) -> Iterator[str]:
    """What a reader may type: in fenced and indented blocks, and within a line."""
    joined = text.replace("\\\n", "")
    yield from re.findall(r"^(?:\$ |    )?(bench [a-z].*)$", joined, re.MULTILINE)
    yield from re.findall(r"`(bench [a-z][^`\n]*)`", joined)


def parse(line: str) -> None:
    """UsageError if the command line does not take it; a command's bare name is enough."""
    command = COMMAND
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "…"]
    words = words[: words.index(">")] if ">" in words else words  # the shell's
    while isinstance(command, TyperGroup):
        _, command, words = command.resolve_command(typer.Context(command), words)
    if words and "--help" not in words:
        command.make_context(command.name, words)


@pytest.mark.parametrize("page", EVERY, ids=names(EVERY))
def test_every_command_line_of_a_page_is_taken(page: Path) -> None:
    for line in command_lines(page.read_text(encoding="utf-8")):
        try:
            parse(line)
        except UsageError as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


def test_a_command_line_with_an_unknown_option_is_refused() -> None:
    (line,) = command_lines("    bench run --generators all \\\n      --segmentres all\n")
    with pytest.raises(UsageError, match="segmentres"):
        parse(line)


def test_every_option_named_alone_exists() -> None:
    known = {name for p in parameters(COMMAND) for name in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "--extra-index-url", "--only"}  # pip's, and docs/ablations.py's
    for page in EVERY:
        found = set(re.findall(r"`(--[a-z-]+)\b[^`\n]*`", page.read_text(encoding="utf-8")))
        assert found <= known, f"{page.name}: {found - known}"


def parameters(command: Any) -> Iterator[Any]:
    if isinstance(command, TyperGroup):
        for part in command.commands.values():
            yield from parameters(part)
    else:
        yield from command.params


def test_every_block_of_python_and_yaml_is_a_file_that_an_example_uses_or_a_test_reads() -> None:
    for page in PAGES:
        for block in examples.blocks(page.read_text(encoding="utf-8")):
            assert block.title or block.language not in ("python", "yaml"), (page, block.line)
            if block.language == "python":
                assert any(block.title in body for body in bodies(page, "console")), block.title


def bodies(page: Path, language: str) -> list[str]:
    found = examples.blocks(page.read_text(encoding="utf-8"))
    return [block.body for block in found if block.language == language]


YAML = [(page, body) for page in EVERY for body in bodies(page, "yaml")]


@pytest.mark.parametrize(("page", "body"), YAML, ids=[page.name for page, _ in YAML])
def test_yaml_is_taken_by_the_model_it_is_for(page: Path, body: str, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(body, encoding="utf-8")
    if set(yaml.safe_load(body)) <= set(EngineConfig.model_fields):
        assert read_engine(path, None) is not None
    else:
        assert DataConfig.model_validate(read_data_argument(str(path))).source.startswith(
            str(tmp_path)
        )

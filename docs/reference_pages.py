"""The reference pages whose text is the code's: commands, and keys of the configuration.

The site's build puts them in the place of their markers (`site_hooks.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.core import TyperGroup


def commands() -> str:
    """A section for each command: what it does, its usage, a table of its options."""
    from typer.main import get_command

    from bench.cli.main import app

    return "\n".join(_sections(get_command(app), "bench"))


def _sections(command: Any, name: str) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for part in command.commands.values():
            yield from _sections(part, f"{name} {part.name}")
        return
    context = typer.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield f"## {name}\n\n{command.help or ''}\n\n    {usage}\n"
    records = [record for p in command.params if (record := p.get_help_record(context))]
    if records:
        yield "| option | meaning |\n| --- | --- |"
        yield from (f"| `{_cell(names)}` | {_cell(told)} |" for names, told in records)
        yield ""


def configuration() -> str:
    """A table of keys for the run, the data set, the engine, and one training."""
    from bench.config import RunConfig
    from bench.engine.config import EngineConfig

    run = ["## bench run --set", "", *_table(RunConfig)]
    engine = ["## bench run --engine FILE.yaml", "", *_table(EngineConfig)]
    return "\n".join([*run, "", *engine, ""])


def _table(model: type[BaseModel]) -> list[str]:
    rows = [
        f"| `{key}` | {_cell(told)} | {_value(default)} |" for key, told, default in keys(model)
    ]
    return ["| key | meaning | default |", "| --- | --- | --- |", *rows]


def keys(
    model: type[BaseModel], prefix: str = "", given: Any = None
) -> Iterator[tuple[str, str, Any]]:
    """(key, meaning, default) of every field, of those within parts after their part."""
    for name, field in model.model_fields.items():
        default = field.default if given is None else getattr(given, name)
        part = isinstance(default, BaseModel)
        yield f"{prefix}{name}", field.description or "", "" if part else default
        if part:
            yield from keys(type(default), f"{prefix}{name}.", default)


def _value(value: Any) -> str:
    """A default as YAML writes it; nothing for an empty text or a value that must be given."""
    if value is PydanticUndefined or value == "":
        return ""
    if value is None:
        return "`null`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")

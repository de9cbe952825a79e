"""`bench list`: plug-ins, data sets and presets, and the configuration of each."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bench.errors import InputError, nearest

KINDS = ("generators", "controls", "segmenters", "extractors", "datasets", "presets")


def list_(
    what: Annotated[
        str | None, typer.Argument(help=f"{', '.join(KINDS)}, or a name of one of them.")
    ] = None,
    plugin: Annotated[list[str], typer.Option("--plugin", help="Plug-in file to load first.")] = [],  # noqa: B006
) -> None:
    """List what there is, or show one thing's configuration with its defaults and meaning.

    Example: bench list ldm-vae
    """
    from pathlib import Path

    if plugin:
        from bench.registry import load_plugin

        for path in plugin:
            load_plugin(Path(path))
    if what is None:
        for kind in KINDS:
            _show_kind(kind)
    elif what in KINDS:
        _show_kind(what)
    else:
        _show_one(what)


def _show_kind(kind: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=kind, title_justify="left", box=None, pad_edge=False)
    for column in ("name", "what", "from"):
        table.add_column(column)
    for row in _rows(kind):
        table.add_row(*map(escape, row))
    Console().print(table, "")


def _rows(kind: str) -> list[tuple[str, str, str]]:
    from bench.registry import EXTRACTORS, GENERATORS, SEGMENTERS

    if kind == "datasets":
        from bench.datasets import builtin_datasets

        return [(name, text, "") for name, text in builtin_datasets()]
    if kind == "presets":
        from bench.presets import preset_names, read_preset

        return [
            (name, str(read_preset(name).get("description", "")), "voxelbench")
            for name in preset_names()
        ]
    registries = {"segmenters": SEGMENTERS, "extractors": EXTRACTORS}
    registry: Any = registries.get(kind, GENERATORS)
    names = registry.control_names() if kind == "controls" else registry.names()
    return [(n, registry.description(n), registry.origin(n).source) for n in names]


def _show_one(name: str) -> None:
    """A preset's values, or a plug-in's (or a run's) configuration field by field."""
    import yaml
    from rich.console import Console

    from bench.presets import preset_names, read_preset

    console = Console()
    if name in preset_names():
        console.print(
            yaml.safe_dump(read_preset(name), sort_keys=False), highlight=False, markup=False
        )
        return
    from bench.datasets.ready import ready_names, ready_text

    if name in ready_names():
        console.print(ready_text(name), highlight=False, markup=False, soft_wrap=True, end="")
        return
    from bench.registry import EXTRACTORS

    if name in EXTRACTORS.names():
        console.print(_extractor(name), highlight=False, markup=False, soft_wrap=True)
        return
    model, title = _model(name)
    console.print(title, highlight=False, markup=False)
    _show_fields(console, model.model_construct(), "")  # its defaults


def _extractor(name: str) -> str:
    """What the scoring.* of a run can say about an extractor."""
    from bench.registry import EXTRACTORS

    extractor = EXTRACTORS.get(name)
    weights = "scoring.weights or --weights" if extractor.needs_weights else "none needed"
    return (
        f"{name}: {EXTRACTORS.description(name)} ({EXTRACTORS.origin(name).source})\n"
        f"protocol: {extractor.protocol}\n"
        f"preprocess: {', '.join(extractor.preprocessings) or 'no choice'}\n"
        f"weights: {weights}"
    )


def _model(name: str) -> tuple[Any, str]:
    from bench.config import RunConfig
    from bench.datasets.config import PHANTOM, DataConfig
    from bench.engine.config import EngineConfig
    from bench.registry import EXTRACTORS, GENERATORS, SEGMENTERS

    if name == "run":
        return RunConfig, "run: every key of --set"
    if name == "engine":
        return EngineConfig, "engine: every key of an --engine FILE.yaml"
    if name == PHANTOM:
        return DataConfig, f"{name}: data.* of --set, and the fields of a --data FILE.yaml"
    for registry in (GENERATORS, SEGMENTERS):
        if name in (*registry.names(), *registry.control_names()):
            plugin = registry.get(name)
            return (
                plugin.Config,
                f"{name}: {registry.description(name)} ({registry.origin(name).source})",
            )
    from bench.datasets.ready import ready_names
    from bench.presets import preset_names

    plugins = [*GENERATORS.names(), *GENERATORS.control_names(), *SEGMENTERS.names()]
    known = [
        *KINDS,
        "run",
        "engine",
        *plugins,
        *EXTRACTORS.names(),
        *preset_names(),
        *ready_names(),
    ]
    raise InputError(f"There is nothing named {name!r} to list: {nearest(name, known)}")


def _show_fields(console: Any, config: Any, prefix: str) -> None:
    """A line per field with its value and meaning; parts are indented."""
    from pydantic import BaseModel

    for key, field in type(config).model_fields.items():
        value = getattr(config, key, "required")
        part = isinstance(value, BaseModel)
        shown = "" if part else f" {_plain(value)}"
        meaning = f"  # {field.description}" if field.description else ""
        line = f"{prefix}{key}:{shown}{meaning}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
        if part:
            _show_fields(console, value, f"{prefix}  ")


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return "null" if value is None else str(value)

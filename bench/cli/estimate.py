"""`bench estimate`: memory and time of a preset's generators on this device."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.estimate import Row


def estimate(
    preset: Annotated[
        str, typer.Option(help="quick, small or paper; see bench list presets.")
    ] = "paper",
    generators: Annotated[
        str, typer.Option(help='"all", "controls", or names separated by commas.')
    ] = "all",
    data: Annotated[
        str, typer.Option(help='"phantom", a folder in the Decathlon layout, or a YAML file.')
    ] = "phantom",
    settings: Annotated[
        list[str],
        typer.Option("--set", help="Override a value: --set data.grid=[64,64,64]. Repeatable."),
    ] = [],  # noqa: B006
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps; as the configuration says by default.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="Longest time of one measurement; a stage has up to four.")
    ] = 120.0,
    memory: Annotated[
        float | None, typer.Option(help="GiB that may be used; 80 % of what is free by default.")
    ] = None,
    plugin: Annotated[
        list[Path], typer.Option("--plugin", help="Python file of a generator; repeatable.")
    ] = [],  # noqa: B006
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the same numbers and more.")
    ] = None,
) -> None:
    """Estimate what every stage of every generator costs on this device: nothing is trained.

    Example: bench estimate --preset paper --generators ldm-vae,3d-lldm --json costs.json

    A few true steps of each are measured, on smaller grids where the preset's own does not fit in
    memory and time; what then holds for the full grid is extrapolated by a law that is printed.
    """
    from rich.console import Console

    from bench.config import resolve
    from bench.datasets.config import read_data_argument
    from bench.datasets.source import open_source
    from bench.estimate import default_limits
    from bench.estimate import estimate as measure
    from bench.registry import load_plugin

    signal.signal(signal.SIGTERM, _leave)
    for path in plugin:
        load_plugin(path)
    chosen = [*settings, *([f"device.accelerator={device}"] if device else [])]
    config = resolve(preset, read_data_argument(data), chosen, generators, "none", {})
    config.device.check()
    limits = default_limits(config, seconds, memory)
    names = open_source(config.data).label_names
    errors = Console(stderr=True)
    rows = measure(
        config,
        names,
        limits,
        plugin,
        lambda line: errors.print(line, highlight=False, markup=False),
    )
    grid = "x".join(map(str, config.data.grid))
    head = (
        f"Preset {preset}, grid {grid}, on {config.device.name()} "
        f"({limits.memory_mb / 1024:.1f} GiB may be used, {config.device.resolved_precision()})"
    )
    show(Console(), head, rows)
    if json_file is not None:
        write_json(json_file, head, rows)
    if not all(row.measured for row in rows):
        raise typer.Exit(1)


def _leave(number: int, frame: FrameType | None) -> None:
    """Ended from outside as by Ctrl-C: states of gigabytes are removed on the way out."""
    sys.exit(128 + number)


def show(console: Any, head: str, rows: list[Row]) -> None:
    """A line per stage, why grids were reduced, the law, and the totals."""
    from itertools import groupby

    from rich.table import Table

    from bench.scaling import LAW, shown

    table = Table(title=head, title_justify="left", box=None, pad_edge=False)
    for name in ("", "parameters", "grid"):
        table.add_column(name)
    for name in ("batch", "s", "GiB", "steps", "hours"):
        table.add_column(name, justify="right")
    for name, own in groupby(rows, lambda row: row.generator):
        table.add_row(name, style="bold")
        for row in own:
            mark = "~" if row.extrapolated else ""
            table.add_row(
                "  " + row.part.removeprefix(f"{name}/"),
                "\n".join(f"{key} {millions(n)}" for key, n in row.parameters.items()),
                shown(row.measured[-1].grid) if row.measured else "not measured",
                f"{row.batch}" + (" (1)" if 0 < row.measured_batch < row.batch else ""),
                figure(row.seconds, mark),
                figure(row.memory_mb / 1024, mark),
                str(row.steps or ""),
                f"as {row.shared}" if row.shared else figure(row.hours, mark),
            )
    console.print(table)
    for line in notes(rows):
        console.print(line, highlight=False, markup=False)
    if any(row.extrapolated for row in rows):
        console.print(f"~ {LAW}", highlight=False, markup=False)


def notes(rows: list[Row]) -> list[str]:
    """Why a grid was reduced, and what all fits take together."""
    told = [f"{row.generator}, {row.part}: {row.reason}." for row in rows if row.reason]
    told = list(dict.fromkeys(told))
    own = [row for row in rows if row.steps and not row.shared]
    hours = sum(row.hours for row in own if row.measured)
    holes = sum(not row.measured for row in own)
    without = f", without {holes} that could not be measured" if holes else ""
    return [
        "s: seconds of an optimiser step, and in the rows named sampling of a volume; GiB: peak.",
        *told,
        f"All fits of one seed: {hours:.3g} hours{without}; stages that two generators share count "
        "once. Encoding the training cases, validation and checkpoints come on top.",
    ]


def figure(value: float, mark: str = "") -> str:
    """Three significant digits, and the mark of what was extrapolated."""
    return "–" if value != value else f"{mark}{value:.3g}"


def millions(count: int) -> str:
    """``191 M``."""
    return f"{count / 1e6:.3g} M"


def write_json(path: Path, head: str, rows: list[Row]) -> None:
    """Everything that was measured, with the law; what is unknown is null."""
    import json
    from dataclasses import asdict

    from bench.scaling import LAW

    content = {
        "what": head,
        "law": LAW,
        "rows": [_finite({**asdict(row), "hours": row.hours}) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and v != v else v for k, v in values.items()}

"""`bench estimate`: hours, memory and disk of a configuration on this device."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.complete import generator_names, preset_names, segmenter_names

if TYPE_CHECKING:
    from bench.estimate import Row
    from bench.forecast import Forecast


def estimate(
    preset: Annotated[
        str,
        typer.Option(
            help="quick, small or paper; see bench list presets.", autocompletion=preset_names
        ),
    ] = "paper",
    generators: Annotated[
        str,
        typer.Option(
            help='"all", "none", "controls", or names separated by commas.',
            autocompletion=generator_names,
        ),
    ] = "all",
    segmenters: Annotated[
        str,
        typer.Option(
            help='"all", "none", or names separated by commas.', autocompletion=segmenter_names
        ),
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
        list[Path],
        typer.Option("--plugin", help="Python file of a generator or segmenter; repeatable."),
    ] = [],  # noqa: B006
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the same numbers and more.")
    ] = None,
) -> None:
    """Estimate what a run costs on this device, stage by stage: nothing is trained.

    Example: bench estimate --preset paper --generators ldm-vae,3d-lldm --json costs.json

    A few true steps of each are measured, on smaller grids where the preset's own does not fit in
    memory and time; what then holds for the full grid is extrapolated by a law that is printed.
    """
    from rich.console import Console

    from bench.config import resolve
    from bench.datasets.config import read_data_argument
    from bench.estimate import default_limits
    from bench.estimate import estimate as measure
    from bench.forecast import forecast, to_measure
    from bench.harness import plan_run
    from bench.registry import load_plugin

    signal.signal(signal.SIGTERM, _leave)
    for path in plugin:
        load_plugin(path)
    chosen = [*settings, *([f"device.accelerator={device}"] if device else [])]
    asked = resolve(preset, read_data_argument(data), chosen, generators, segmenters, {})
    plan = plan_run(asked, plugin)
    config = to_measure(plan)
    limits = default_limits(config, seconds, memory)
    errors = Console(stderr=True)
    rows = measure(
        config,
        plan.data.label_names,
        limits,
        plugin,
        lambda line: errors.print(line, highlight=False, markup=False),
    )
    grid = "x".join(map(str, config.data.grid))
    head = (
        f"Preset {preset}, grid {grid}, on {config.device.name()} "
        f"({limits.memory_mb / 1024:.1f} GiB may be used, {config.device.resolved_precision()})"
    )
    expected = forecast(plan, plan.cells, rows)
    show(Console(), head, rows, expected)
    if json_file is not None:
        write_json(json_file, head, rows, expected)
    if not all(row.measured for row in rows):
        raise typer.Exit(1)


def _leave(number: int, frame: FrameType | None) -> None:
    """Ended from outside as by Ctrl-C: states of gigabytes are removed on the way out."""
    sys.exit(128 + number)


def show(console: Any, head: str, rows: list[Row], expected: Forecast) -> None:
    """A line per stage, why grids were reduced, the law, and the totals."""
    from itertools import groupby

    from rich.markup import escape
    from rich.table import Table

    from bench.scaling import LAW, shown

    table = Table(title=head, title_justify="left", box=None, pad_edge=False)
    for name in ("", "parameters", "grid"):
        table.add_column(name)
    for name in ("batch", "s", "GiB", "steps", "hours"):
        table.add_column(name, justify="right")
    for name, own in groupby(rows, lambda row: row.generator):
        table.add_row(escape(name), style="bold")
        for row in own:
            mark = "~" if row.extrapolated else ""
            table.add_row(
                "  " + escape(row.part.removeprefix(f"{name}/")),
                escape("\n".join(f"{key} {millions(n)}" for key, n in row.parameters.items())),
                shown(row.measured[-1].grid) if row.measured else "not measured",
                f"{row.batch}" + (" (1)" if 0 < row.measured_batch < row.batch else ""),
                figure(row.seconds, mark),
                figure(row.memory_mb / 1024, mark),
                str(row.steps or ""),
                f"as {row.shared}" if row.shared else figure(row.hours, mark),
            )
    console.print(table)
    for line in notes(rows, expected):
        console.print(line, highlight=False, markup=False)
    if any(row.extrapolated for row in rows):
        console.print(f"~ {LAW}", highlight=False, markup=False)


def notes(rows: list[Row], expected: Forecast) -> list[str]:
    """Why a grid was reduced, and what the whole run takes."""
    from bench.remaining import duration

    told = [f"{row.generator}, {row.part}: {row.reason}." for row in rows if row.reason]
    told = list(dict.fromkeys(told))
    parts = [f"{word} {duration(3600 * h)}" for word, h in expected.hours.items()]
    without = (
        f", without {len(expected.unknown)} cells whose networks could not be measured"
        if expected.unknown
        else ""
    )
    return [
        "s: seconds of an optimiser step, and in the rows named sampling of a volume; GiB: peak; "
        "hours: of one fit.",
        *told,
        f"The whole run, one cell after another: {', '.join(parts) or 'unknown'}{without}; stages "
        "that two generators share count once. Features, scores, encoding the training cases, "
        "validation and checkpoints come on top.",
        f"Disk: up to {expected.disk_gb:.3g} GB, and {expected.checkpoints_gb:.3g} GB more for the "
        "checkpoints of the largest fit while it runs.",
    ]


def figure(value: float, mark: str = "") -> str:
    """Three significant digits, and the mark of what was extrapolated."""
    return "–" if value != value else f"{mark}{value:.3g}"


def millions(count: int) -> str:
    """``191 M``."""
    return f"{count / 1e6:.3g} M"


def write_json(path: Path, head: str, rows: list[Row], expected: Forecast) -> None:
    """Everything that was measured, with the law; what is unknown is null."""
    import json
    from dataclasses import asdict

    from bench.scaling import LAW

    content = {
        "what": head,
        "law": LAW,
        "run": asdict(expected),
        "rows": [_finite({**asdict(row), "hours": row.hours}) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and v != v else v for k, v in values.items()}

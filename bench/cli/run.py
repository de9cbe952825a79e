"""`bench run`: train, sample, score, segment, and render the tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.complete import generator_names, preset_names, segmenter_names
from bench.errors import InputError

Plugins = Annotated[
    list[Path],
    typer.Option(
        "--plugin", help="Python file that defines a generator, segmenter or extractor; repeatable."
    ),
]


def run(
    generators: Annotated[
        str,
        typer.Option(
            help='"all", "none", "controls", or names separated by commas; "all" has no controls.',
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
        str,
        typer.Option(
            help='"phantom", a folder in the Decathlon layout, NAME=FOLDER of a ready data set '
            "(bench list datasets), or a YAML file."
        ),
    ] = "phantom",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/DATA-PRESET by default.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="quick, small or paper; see bench list presets.", autocompletion=preset_names
        ),
    ] = "quick",
    settings: Annotated[
        list[str],
        typer.Option("--set", help="Override a value: --set data.cases=20. May be repeated."),
    ] = [],  # noqa: B006
    seeds: Annotated[str | None, typer.Option(help="Seeds separated by commas.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks separated by commas; all by default.")
    ] = None,
    real: Annotated[
        str | None, typer.Option(help="Real training cases used: counts or all, e.g. 6,20,all.")
    ] = None,
    ratio: Annotated[
        str | None, typer.Option(help="Synthetic volumes per real case, e.g. 0.5,1,2.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="The extractor's file of weights; MedicalNet's is resnet_50_23dataset.pth."
        ),
    ] = None,
    plugin: Plugins = [],  # noqa: B006
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Cells at a time, in processes of their own (needs Parsl)."),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option(help="YAML file of workers, limits and batch system; see bench list engine."),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, help="GPUs, or processes of a CPU, that train one network; also device.devices."
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option(help="Try again the cells that failed before.")
    ] = False,
    rerun: Annotated[
        list[str],
        typer.Option(
            help="Run cells again, done or not: a pattern of titles as bench status shows them, "
            'such as "fit ldm-vae *", or the beginning of a key. May be repeated.'
        ),
    ] = [],  # noqa: B006
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate/--no-estimate",
            help="Say first what a run takes that may last over an hour, from a minute of "
            "measuring.",
        ),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option(help="Show what would be computed, and compute nothing.")
    ] = False,
) -> None:
    """Train and score every generator, train every segmenter on R and R+S, make the tables.

    The same command again goes on where the last one stopped, and does no work twice.

    Example: bench run --generators all --segmenters all --preset small --out runs/first
    """
    from bench.config import resolve
    from bench.datasets.config import read_data_argument
    from bench.engine.config import read_engine
    from bench.engine.schedule import Again, chosen
    from bench.harness import plan_run
    from bench.registry import load_plugin

    for path in plugin:
        load_plugin(path)
    options = {
        "seeds": _list(seeds, "--seeds", int),
        "tasks": tuple(part.strip() for part in tasks.split(",")) if tasks else None,
        "real": _list(real, "--real", lambda text: text if text == "all" else int(text)),
        "ratio": _list(ratio, "--ratio", float),
    }
    if devices is not None:
        settings = [*settings, f"device.devices={devices}"]
    config = resolve(
        preset, read_data_argument(data), settings, generators, segmenters, options, weights
    )
    plan = plan_run(config, plugin)
    again = Again(retry_failed, chosen(plan.cells, rerun))
    name = re.sub(r"[^\w.-]+", "-", plan.data.name)  # a data set's own name may hold anything
    folder = out or Path("runs") / f"{name}-{preset}"
    if dry_run:
        from bench.cli.dry_run import show_plan

        show_plan(plan, folder)
        return
    from bench.cli.go import go

    raise typer.Exit(go(plan, folder, again, read_engine(engine, workers), estimate))


def _list(text: str | None, option: str, convert: object) -> tuple[object, ...] | None:
    """Values separated by commas; InputError names the option and the value that is none."""
    if text is None:
        return None
    values = []
    for part in text.split(","):
        try:
            values.append(convert(part.strip()))  # type: ignore[operator]
        except ValueError:
            raise InputError(
                f"{option} has {part.strip()!r} in {text!r}; give numbers separated by commas."
            ) from None
    return tuple(dict.fromkeys(values))

"""`bench data show`: a picture of a data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def show(
    path: Annotated[
        str,
        typer.Argument(
            help='"phantom", a folder in the Decathlon layout, NAME=FOLDER of a ready data set, or '
            "a YAML file."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The picture; NAME.png in this folder by default.")
    ] = None,
    count: Annotated[
        int, typer.Option("--cases", min=1, help="How many, from the first to the last.")
    ] = 4,
    case: Annotated[list[str], typer.Option(help="Show this case instead; may be repeated.")] = [],  # noqa: B006
    settings: Annotated[
        list[str], typer.Option("--set", help="As for bench run: --set data.links=true.")
    ] = [],  # noqa: B006
) -> None:
    """Draw three planes of some cases with the outlines of their labels, as a PNG.

    Scans are shown as their files have them, before they are cropped and resampled.
    Example: bench data show Task08_HepaticVessel --case hepaticvessel_001
    """
    from bench.cli.counting import counting
    from bench.config import resolve
    from bench.datasets.config import read_data_argument
    from bench.datasets.montage import Shown, montage, write_png
    from bench.datasets.source import open_source
    from bench.disk import writing
    from bench.errors import InputError, nearest

    config = resolve("quick", read_data_argument(path), settings, "none", "none", {}).data
    source = open_source(config.model_copy(update={"cases": None}))
    for id in case:
        if id not in source.ids:
            raise InputError(f"{source.name} has no case {id!r}: {nearest(id, source.ids)}")
    ids = case or _spread(source.ids, count)
    name = re.sub(r"[^\w.-]+", "-", source.name)  # a data set's own name may hold anything
    picture = out or Path(f"{name or 'data'}.png")
    if picture.suffix.lower() != ".png":
        raise InputError(f"--out {picture} is no .png file; give one.")
    with counting() as tick:
        loaded = (Shown(id, source.load(id)) for id in ids)
        figure = montage(loaded, source.label_names, lambda done: tick(done, len(ids)))
        with writing(picture.parent):
            write_png(figure, picture)
    typer.echo(f"{', '.join(ids)}: {picture}")


def _spread(ids: tuple[str, ...], count: int) -> list[str]:
    """At most `count` of the ids, from the first to the last."""
    n = min(count, len(ids))
    return [ids[round(k * (len(ids) - 1) / max(n - 1, 1))] for k in range(n)]

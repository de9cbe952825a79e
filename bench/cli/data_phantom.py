"""`bench data phantom`: the built-in phantom as NIfTI files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def phantom(
    out: Annotated[Path, typer.Argument(help="New folder in the Decathlon layout.")],
    cases: Annotated[int, typer.Option(min=3, help="How many.")] = 40,
    grid: Annotated[
        tuple[int, int, int],
        typer.Option(help="Voxels along right, anterior, superior; multiples of 16, from 32."),
    ] = (64, 64, 64),
    seed: Annotated[int, typer.Option(min=0, help="Of the patients.")] = 0,
) -> None:
    """Write phantoms as NIfTI files: liver MR with portal vein, hepatic vein and HCC.

    Example: bench data phantom phantoms --cases 20 --grid 64 64 64
    """
    from bench.cli.counting import counting
    from bench.config import validate
    from bench.datasets.config import DataConfig
    from bench.datasets.source import PhantomSource
    from bench.datasets.write import ToWrite, require_new, write_decathlon
    from bench.disk import writing

    config = validate(DataConfig, {"cases": cases, "grid": grid, "seed": seed}, "the command")
    source = PhantomSource(config)
    require_new(out)
    with writing(out), counting() as tick:
        loaded = ((id, source.load(id)) for id in source.ids)
        write_decathlon(
            (ToWrite(id, raw.image, raw.label, raw.affine) for id, raw in loaded),
            out,
            source.label_names,
            {
                "description": f"voxelbench's procedural liver phantom, seed {seed}",
                "modality": {"0": "MRI"},
            },
            lambda done: tick(done, cases),
        )
    typer.echo(f"{cases} phantoms with labels: {out}")

"""`bench export`: synthetic pairs of a run for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")],
    generator: Annotated[str, typer.Argument(help="Name of a generator of the run.")],
    to: Annotated[
        Path,
        typer.Option(help="New folder; for nnU-Net named as in nnUNet_raw/Dataset501_Synthetic."),
    ],
    format: Annotated[
        Literal["decathlon", "nnunet"],
        typer.Option(help="decathlon, which MONAI reads as well, or nnunet (version 2)."),
    ] = "decathlon",
    seed: Annotated[
        int | None, typer.Option(help="Of the generator's fit; the run's first by default.")
    ] = None,
) -> None:
    """Write the volumes that a run drew from a generator, with their labels, as NIfTI files.

    Example: bench export runs/phantom-quick 3d-lldm --to synthetic

    Labels are the ones that segmenters learned from in arm S; dataset.json says where they are
    from. For more volumes than the run drew, use bench sample --nifti.
    """
    from bench.cli.counting import counting
    from bench.exporting import export as write

    with counting() as tick:
        done = write(out, generator, to, format, seed, tick)
    labels = f"{done.label_source} labels"
    typer.echo(f"{done.count} volumes of {generator} with {labels}: {done.folder}")
    if done.label_source == "pseudo":
        typer.echo("Nobody drew these labels: a segmenter trained on the training split did.")

"""`bench sample`: draw volumes from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130


def sample(
    generator: Annotated[str, typer.Argument(help="Name of a generator of the run.")],
    run: Annotated[Path, typer.Option(help="Folder of the run, the --out of bench run.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Draw images for these label maps: a volume set, a folder in the Decathlon "
            "layout, or a folder of NIfTI files."
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="How many volumes; one for each label map, or 10, by default."),
    ] = None,
    first: Annotated[
        int, typer.Option(min=0, help="Index of the first; volume i is the run's own i-th.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="New folder; RUN/samples/GENERATOR-SEED by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the fit and the noise; the run's first by default.")
    ] = None,
    nifti: Annotated[
        bool, typer.Option("--nifti", help="Write NIfTI files too, into the folder nifti.")
    ] = False,
    settings: Annotated[
        list[str],
        typer.Option("--set", help="Change how volumes are drawn: --set sampling.steps=50."),
    ] = [],  # noqa: B006
) -> None:
    """Draw volumes from a generator that a run has fitted, as a volume set.

    Example: bench sample 3d-lldm --run runs/phantom-small --labels my-masks --nifti

    Image-only generators give images without labels. Where --count is larger than the number of
    label maps, these are gone through again with other noise.
    """
    from rich.console import Console

    from bench.cli.counting import counting
    from bench.sampling import draw, open_fitted
    from leaderboard.names import file_name

    console = Console()
    fitted = open_fitted(run, generator, seed, settings)
    folder = out or run / "samples" / f"{file_name(generator)}-{fitted.cell.tags.seed}"
    try:
        with counting() as tick:
            drawn = draw(fitted, folder, first, count, labels, tick)
        if nifti:
            drawn.volumes.export_nifti(folder / "nifti")
    except KeyboardInterrupt:
        _say(console, f"Interrupted; what {folder} holds is unfinished.")
        raise typer.Exit(INTERRUPTED) from None
    _say(console, f"{len(drawn.volumes)} volumes of {generator}, {drawn.seconds:.3g} s each:")
    _say(console, str(folder))
    for record in drawn.records:
        _say(console, f"{record['metric']} {record['label']}".strip() + f": {record['value']:.4g}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)

"""`bench new`: a plug-in to begin with, as one commented file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Write a plug-in to begin with: one commented file that passes bench check.\n\n"
    "Example: bench new generator my-model",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the plug-in, such as my-model.")]
Out = Annotated[Path, typer.Option(help="Folder for the file; this one by default.")]


@app.command()
def generator(name: Name, out: Out = Path()) -> None:
    """Write a small generator that learns: a variational autoencoder.

    Example: bench new generator my-model
    """
    _write("generator", name, out)


@app.command()
def segmenter(name: Name, out: Out = Path()) -> None:
    """Write a small segmenter that learns: a U-Net.

    Example: bench new segmenter my-net
    """
    _write("segmenter", name, out)


def _write(kind: str, name: str, folder: Path) -> None:
    import shlex

    from bench.templates import write_plugin

    path = write_plugin(kind, name, folder)
    file = shlex.quote(str(path))
    typer.echo(f"{path} is a {kind} that works. Change it, and look at it by\n")
    typer.echo(f"  bench check {file}")
    typer.echo(f"  bench run --plugin {file} --{kind}s {name}")

"""`bench data get`: how to get a ready data set; nothing is downloaded."""

from __future__ import annotations

from typing import Annotated

import typer


def get(
    name: Annotated[str, typer.Argument(help="A ready data set; bench list datasets has all.")],
    as_yaml: Annotated[
        bool,
        typer.Option(
            "--yaml", help="Print the data file instead, to change it: add source: FOLDER."
        ),
    ] = False,
) -> None:
    """Say what a ready data set holds, under which licence, and how to get it.

    Nothing is downloaded.

    Example: bench data get 3d-ircadb-01
    """
    import yaml

    from bench.datasets.ready import read_ready

    ready = read_ready(name)
    if as_yaml:
        fields = {"source": "FOLDER", **ready.data}
        typer.echo(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), nl=False)
        return
    about = ready.about
    lines = [
        about.title,
        f"  shows    {about.shows}",
        f"  licence  {about.licence}",
        f"  access   {about.access}",
        f"  cite     {about.cite}",
        "",
        "Steps",
        *(f"  {k}. {step}" for k, step in enumerate(about.steps, start=1)),
        "",
        "Then",
        f"  bench data check {name}=FOLDER",
        f"  bench data show {name}=FOLDER",
        f"  bench run --data {name}=FOLDER",
    ]
    if about.notes:
        lines += ["", "Notes", *(f"  - {note}" for note in about.notes)]
    typer.echo("\n".join(lines))

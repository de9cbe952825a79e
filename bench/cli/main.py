"""The commands `bench` and `voxelbench`."""

from __future__ import annotations

import sys

import typer

from bench.cli import (
    check,
    clean,
    compare,
    data_check,
    data_get,
    data_phantom,
    data_show,
    doctor,
    estimate,
    export,
    list_,
    new,
    report,
    run,
    sample,
    show,
    status,
    validate,
)
from bench.errors import InputError
from bench.names import complaint

app = typer.Typer(
    name="bench",
    help="Are synthetic 3D medical images realistic, and do they help segmentation?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("list")(list_.list_)
app.command("status")(status.status)
app.command("validate")(validate.validate)
app.command("clean")(clean.clean)
app.command("report")(report.report)
app.command("show")(show.show)
app.command("compare")(compare.compare)
app.command("doctor")(doctor.doctor)
app.command("sample")(sample.sample)
app.command("estimate")(estimate.estimate)
app.command("export")(export.export)
data = typer.Typer(help="Check, look at, get and make data sets.", no_args_is_help=True)
data.command("check")(data_check.check)
data.command("show")(data_show.show)
data.command("get")(data_get.get)
data.command("phantom")(data_phantom.phantom)
app.add_typer(data, name="data")
app.add_typer(new.app, name="new")
app.command("check")(check.check)


def main() -> None:
    """Run the command line; exit codes: 0 well, 1 cells failed, 2 usage or input, 130 stopped."""
    try:
        if problem := complaint():
            raise InputError(problem)
        app()
    except InputError as error:
        # Reasons of other libraries may run over several lines.
        typer.echo(f"bench: {' '.join(str(error).split())}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()

"""The `wan` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import common
from common.cli import (
    container,
    doctor,
    engine,
    estimate,
    generate,
    jobs,
    runpod,
    serve,
    services,
    up,
)
from common.cli.models.app import app as models
from common.cli.screen import EXIT_CODES, PLAIN, called, guarded, put

app = typer.Typer(
    no_args_is_help=True,
    epilog=EXIT_CODES,
    **PLAIN,
)


def _version(asked: bool) -> None:
    if asked:
        put(f"wan {common.__version__}")
        raise typer.Exit


@app.callback()
def wan(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Say which this is."
        ),
    ] = False,
) -> None:
    """Serve video models over ComfyUI, and make clips with them."""


app.command()(services.services)
app.command()(serve.serve)
app.add_typer(
    typer.Typer(help="Make a clip with a service that runs."),
    name="generate",
    cls=generate.Services,
    no_args_is_help=True,
    subcommand_metavar='SERVICE "PROMPT" [OPTIONS]',
)
app.add_typer(
    typer.Typer(help="Say what a clip would take, without making it."),
    name="estimate",
    cls=estimate.Services,
    no_args_is_help=True,
    subcommand_metavar="SERVICE [OPTIONS]",
)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models, name="models")
app.add_typer(engine.app, name="engine")
app.add_typer(runpod.app, name="runpod")
app.command()(doctor.doctor)
app.command()(container.container)
app.command(cls=up.Up)(up.up)


def main() -> None:
    """Run the command line."""
    sys.exit(guarded(lambda: app(prog_name=called())))


if __name__ == "__main__":
    main()

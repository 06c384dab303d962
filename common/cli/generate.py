"""wan generate SERVICE "PROMPT": one clip from a service that runs."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from common.cli.screen import EXIT_CODES, WRONG_USE, Stop, plain_errors, put, say

EPILOG = (
    "The key of the service, if it asks for one, comes from WAN_API_KEY. Ctrl-C cancels"
    f" the job. {EXIT_CODES}"
)

Prompt = Annotated[str, typer.Argument(help="What the video shows.")]
Out = Annotated[
    Path | None,
    typer.Option(help="File or folder to write to.  [default: here, by the job's id]"),
]


class Services(typer.core.TyperGroup):
    """One command for each service, made from its request when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the services' names."""
        from common.service import folders

        return [folder.name for folder in folders()]

    def get_command(self, ctx: Any, cmd_name: str) -> typer.core.TyperCommand | None:
        """Return the command of a service, by a unique prefix of its name."""
        from common.cli.options import with_fields
        from common.service import NoSuchService, find, load

        try:
            service = load(find(cmd_name))
        except NoSuchService as error:
            raise Stop(str(error), code=WRONG_USE) from None
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

        def run(fields: dict[str, Any], **rest: Any) -> None:
            _generate(service.name, fields, **rest)

        run.__signature__ = _own_options()  # type: ignore[attr-defined]
        run.__doc__ = inspect.getdoc(service.request)
        app.command(
            service.name,
            help=f"{service.title}: make a {service.kind}.",
            epilog=EPILOG,
        )(with_fields(run, service.request))
        command = typer.main.get_command(app)
        assert isinstance(command, typer.core.TyperCommand)
        return command

"""wan generate SERVICE "PROMPT": one clip from a service that runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from common.cli.address import DEFAULT_URL, Json, Url, connect, expect
from common.cli.screen import EXIT_CODES, plain_errors, put, say
from common.cli.services import service_of

if TYPE_CHECKING:
    from common.client import Client
    from common.service import Service

EPILOG = (
    "The key of the service, if it asks for one, comes from WAN_API_KEY. Ctrl-C cancels"
    f" the job. {EXIT_CODES}"
)

Fields = dict[str, Any]
Prompt = Annotated[str, typer.Argument(help="What the video shows.")]
Out = Annotated[
    Path | None,
    typer.Option(help="File or folder to write to; absent: here, named by the job."),
]


class Services(TyperGroup):
    """One command for each service, made from its request when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the services' names."""
        from common.service import folders

        return [folder.name for folder in folders()]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand:
        """
        Return the command of a service, by a unique prefix of its name.

        Raises:
            Stop: no service fits, or several.
        """
        from common.cli.options import command

        service = service_of(cmd_name)

        def generate(
            fields: Fields,
            prompt: Prompt,
            url: Url = DEFAULT_URL,
            out: Out = None,
            as_json: Json = False,
        ) -> None:
            with plain_errors(), connect(url) as client:
                expect(client, service.name)
                job = make(client, service, prompt, fields, as_json=as_json)
                save_here(client, job, out, as_json=as_json)

        about = f"{service.title}: make one {service.kind}."
        return command(service, generate, about, EPILOG)


def make(
    client: Client,
    service: Service,
    prompt: str,
    fields: Fields,
    *,
    as_json: bool = False,
) -> dict[str, Any]:
    """Submit a request, follow it and return the job, which succeeded."""
    from common.cli.follow import follow
    from common.cli.options import values

    request = {"prompt": prompt, **values(service.request, fields, client)}
    return follow(client, client.submit(request), as_json=as_json)


def save_here(
    client: Client, job: dict[str, Any], out: Path | None, *, as_json: bool = False
) -> None:
    """Download what a job made, and say where it lies."""
    from common.cli.follow import save

    report(job, save(client, job, out), as_json=as_json)


def report(job: dict[str, Any], paths: list[Path], *, as_json: bool = False) -> None:
    """Say what was made and where it lies; beside JSON, that is a remark."""
    from common.cli.follow import summary

    say(summary(job))
    for path in paths:
        (say if as_json else put)(str(path))

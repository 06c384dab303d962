"""wan estimate SERVICE: what a clip would take, from a service that runs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from common.cli import generate
from common.cli.address import DEFAULT_URL, Json, Url, connect, expect
from common.cli.generate import Fields
from common.cli.screen import EXIT_CODES, plain_errors, put
from common.cli.services import service_of

# A prompt changes neither memory nor time, but a request must have one.
Prompt = Annotated[str, typer.Argument(help="What the video shows; may be left out.")]


class Services(generate.Services):
    """One command for each service, with the options of `wan generate`."""

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand:
        """
        Return the command of a service, by a unique prefix of its name.

        Raises:
            Stop: no service fits, or several.
        """
        from common.cli.options import command, values

        service = service_of(cmd_name)

        def estimate(
            fields: Fields,
            prompt: Prompt = "a clip",
            url: Url = DEFAULT_URL,
            as_json: Json = False,
        ) -> None:
            with plain_errors(), connect(url) as client:
                expect(client, service.name)
                files = service.request.media_fields()
                sent = {name: fields[name] for name in fields if name not in files}
                request = values(service.request, sent, client)
                found = client.estimate({"prompt": prompt, **request})
            for line in [json.dumps(found)] if as_json else spoken(found):
                put(line)

        about = f"{service.title}: say what one {service.kind} would take."
        return command(service, estimate, about, EXIT_CODES)


def spoken(found: dict[str, Any]) -> list[str]:
    """
    Return an estimate as lines for people.

    >>> spoken({"vram_gb": 16.9, "card_gb": None, "seconds": None, "advice": []})
    ['16.9 GB on the card (which is not known)', 'time: too few runs to tell']
    """
    needed, card, took = found["vram_gb"], found["card_gb"], found["seconds"]
    of = "which is not known" if card is None else f"which has {card:.1f} GB"
    memory = "memory: not known" if needed is None else f"{needed:g} GB on the card"
    return [
        memory if needed is None else f"{memory} ({of})",
        f"time: {took[0]:g} to {took[1]:g} s" if took else "time: too few runs to tell",
        *(f"fits: {one['text']}" for one in found["advice"]),
    ]

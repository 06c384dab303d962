"""Where the service is that a command talks to, and how it is told from others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.cli.screen import FAILED, Stop

if TYPE_CHECKING:
    from common.client import Client

DEFAULT_URL = "http://127.0.0.1:8189"
PATIENCE_S = 30.0
CARD_S = 3.0  # whatever else listens there may never answer

Url = Annotated[str, typer.Option(help="Address of the service.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


def connect(url: str, key: str | None = None, **options: float) -> Client:
    """Return a client; the key comes from WAN_API_KEY, never from the command line."""
    from common.client import Client

    if not url.startswith(("http://", "https://")):
        url = f"http://{url}"
    key = key or os.environ.get("WAN_API_KEY") or None
    return Client(url, key, **{"patience_s": PATIENCE_S, **options})


def card(url: str) -> dict[str, Any] | None:
    """Return the card of a service of ours at `url`; None when there is none."""
    from common.client import Refused, Unreachable

    with connect(url, timeout_s=CARD_S) as client:
        try:
            found = client.card()
        except (Refused, Unreachable):
            return None
    return found if {"name", "kind", "engine", "version"} <= set(found) else None


def expect(client: Client, name: str) -> None:
    """
    Check that the service at the client's address is the one that is meant.

    Raises:
        Stop: it is another.
        Unreachable, Refused: it does not answer, or not to us.
    """
    found = client.card().get("name")
    if found != name:
        raise Stop(
            f"{client.url} serves {found or 'something else'}, not {name}",
            "name its own address with --url",
            FAILED,
        )

"""Where the service is that a command talks to, and how it is told from others."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from common.cli.screen import FAILED, Stop
from common.client import Client, Refused, Unreachable

DEFAULT_URL = "http://127.0.0.1:8189"
PATIENCE_S = 30.0

Url = Annotated[str, typer.Option(help="Address of the service.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


def connect(url: str) -> Client:
    """Return a client; the key comes from WAN_API_KEY, never from the command line."""
    if not url.startswith(("http://", "https://")):
        url = f"http://{url}"
    return Client(url, os.environ.get("WAN_API_KEY") or None, patience_s=PATIENCE_S)


def card(url: str) -> dict[str, Any] | None:
    """Return the card of a service of ours at `url`; None when there is none."""
    with connect(url) as client:
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

"""Where the service is that a command talks to, and how it is told from others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from common.cli.screen import FAILED, WRONG_USE, Stop

if TYPE_CHECKING:
    from common.client import Client

DEFAULT_URL = "http://127.0.0.1:8189"
PATIENCE_S = 30.0
CARD_S = 3.0  # whatever else listens there may never answer

Url = Annotated[str, typer.Option(help="Address of the service.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


def connect(url: str, key: str | None = None, **options: float) -> Client:
    """
    Return a client; the key comes from WAN_API_KEY, never from the command line.

    Raises:
        Stop: the address or the key cannot be one.
    """
    from common.client import Client

    whole = url if url.startswith(("http://", "https://")) else f"http://{url}"
    if not _is_address(whole):
        hint = f"--url takes an address such as {DEFAULT_URL}"
        raise Stop(f"{url!r} is no address", hint, WRONG_USE)
    name = "WAN_API_KEYS" if key else "WAN_API_KEY"
    key = key or os.environ.get("WAN_API_KEY") or None
    if key is not None and not _is_key(key):
        raise Stop(
            f"{name} holds what cannot be sent as a key",
            "set it to the key alone: no line break, no blank around it, and no letter"
            " beyond Latin-1",
            WRONG_USE,
        )
    return Client(whole, key, **{"patience_s": PATIENCE_S, **options})


def _is_address(url: str) -> bool:
    """Tell whether the library that will call it takes it for an address."""
    import requests

    try:
        requests.Request("GET", url).prepare()
        return bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:  # requests' own is one, too
        return False


def _is_key(key: str) -> bool:
    """Tell whether a header can carry it, and the service would read the same."""
    try:
        key.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return key.isprintable() and key == key.strip()


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

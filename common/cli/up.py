"""wan up: start FastWan, make one clip, say where it lies, and go on serving."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from common.cli.address import card, connect
from common.cli.generate import Fields, make, report, save_here
from common.cli.screen import EXIT_CODES, WRONG_USE, Stop, plain_errors, say
from common.cli.serve import (
    ComfyUrls,
    Data,
    Engine,
    Host,
    Port,
    Speed,
    listener,
    read,
    start_errors,
)
from common.cli.services import service_of

if TYPE_CHECKING:
    from types import FrameType

    from common.service import Service
    from common.settings import Settings

SERVICE = "fastwan2.2-5b-network-storage"
PROMPT = "a red fox trotting through fresh snow, morning light"

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar='generate "PROMPT"', help="A clip of your own; absent: a sample."
    ),
]
Out = Annotated[Path | None, typer.Option(help="Copy the clip to this file or folder.")]
Once = Annotated[bool, typer.Option("--once", help="End after the clip.")]


class Up(TyperCommand):
    """Takes the request's options too; read only when the command runs."""

    def make_context(self, info_name: Any, args: Any, *more: Any, **extra: Any) -> Any:
        """Parse with the full set of options."""
        from common.cli.options import command

        about = "Start FastWan, make one clip, say where it lies, and go on serving."
        full = command(service_of(SERVICE), run, about, EXIT_CODES)
        return full.make_context(info_name, args, *more, **extra)


def up() -> None:
    """Start FastWan, make one clip, and go on serving."""


def run(
    fields: Fields,
    words: Words = None,
    once: Once = False,
    host: Host = None,
    port: Port = None,
    data: Data = None,
    engine: Engine = None,
    comfyui_url: ComfyUrls = None,
    speed: Speed = None,
    out: Out = None,
) -> None:
    """Use the service that runs already, or start one for as long as we live."""
    prompt = prompt_of(words or [])
    service = service_of(SERVICE)
    with plain_errors(), start_errors(), interruptible():
        settings = read(host, port, data, engine, comfyui_url, speed)
        url = address(settings.host, settings.port)
        found = card(url) if settings.port else None
        if found and found["name"] == service.name:
            say(f"{service.title} runs already at {url}")
            with connect(url) as client:
                save_here(client, make(client, service, prompt, fields), out)
            return
        if settings.data is None:
            # Beside the code, wherever we are called from.
            folder = service.folder.parent / "data" / service.name
            settings = settings.model_copy(update={"data": folder})
        host_it(service, settings, prompt, fields, out, once=once)


def host_it(
    service: Service,
    settings: Settings,
    prompt: str,
    fields: Fields,
    out: Path | None,
    *,
    once: bool,
) -> None:
    """Start the service, make the clip, and serve until Ctrl-C."""
    from common import logs
    from common.cli.background import Background

    logs.set_up(settings, quiet=True)
    with (
        listener(settings) as listening,
        Background(service, settings, listening) as background,
    ):
        url = address(settings.host, listening.getsockname()[1])
        say(f"{service.title} at {url}, described at {url}/docs")
        for one in background.runtime.engines:
            say(f"{settings.engine_kind} engine at {one.comfy.url}")
        with connect(url, key_of(settings)) as client:
            job = make(client, service, prompt, fields)
            if out is not None:
                save_here(client, job, out)
            else:
                folder = background.runtime.files.job(job["id"])
                report(job, [folder / one["name"] for one in job["outputs"]])
        if once:
            return
        say("serving until Ctrl-C")
        try:
            background.wait()
        except KeyboardInterrupt:
            say("stopping")


def prompt_of(words: list[str]) -> str:
    """
    Return the prompt of `generate "PROMPT"`, or the sample's when nothing is said.

    Raises:
        Stop: it is something else.
    """
    match words:
        case []:
            return PROMPT
        case ["generate", prompt]:
            return prompt
    raise Stop(
        f"do not understand {' '.join(words)!r}",
        'put the prompt in quotes: generate "a red fox in snow"',
        WRONG_USE,
    )


def address(host: str, port: int) -> str:
    """
    Return where a service is reached from this machine.

    >>> address("0.0.0.0", 8189), address("::1", 80)
    ('http://127.0.0.1:8189', 'http://[::1]:80')
    """
    near = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def key_of(settings: Settings) -> str | None:
    """Return a key that the service we start will take."""
    keys = settings.api_keys
    return keys[0].get_secret_value() if keys else None


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end us as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""wan serve SERVICE: the HTTP service, in the foreground."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.cli.screen import PORT_TAKEN, WRONG_USE, Stop, plain_errors, say
from common.cli.services import service_of

if TYPE_CHECKING:
    from common.settings import Settings


class EngineKind(StrEnum):
    """What runs the jobs."""

    EMBEDDED = "embedded"
    COMFYUI = "comfyui"


Name = Annotated[
    str, typer.Argument(metavar="SERVICE", help="Its name, or a unique prefix of it.")
]
Host = Annotated[str | None, typer.Option(help="Default: WAN_HOST or 127.0.0.1.")]
Port = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Default: WAN_PORT, or the first free one from 8189. 0: any free one.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder for jobs and files; default: WAN_DATA or ./data/SERVICE."
    ),
]
Engine = Annotated[
    EngineKind | None,
    typer.Option(help="Default: WAN_ENGINE; embedded unless a ComfyUI is named."),
]
ComfyUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--comfyui-url",
        metavar="URL",
        help="A ComfyUI that runs; several = several GPUs. Default: COMFYUI_URL.",
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        min=0, help="Pace of the embedded engine: 1 as a GPU, 0 as fast as it can."
    ),
]


def serve(
    service: Name,
    host: Host = None,
    port: Port = None,
    data: Data = None,
    engine: Engine = None,
    comfyui_url: ComfyUrls = None,
    speed: Speed = None,
) -> None:
    """Serve one service until Ctrl-C or SIGTERM."""
    with plain_errors(), start_errors():
        from common import logs
        from common.api.server import serve
        from common.runtime import Runtime

        settings = read(host, port, data, engine, comfyui_url, speed)
        logs.set_up(settings)
        found = service_of(service)
        with listener(settings) as listening:
            serve(Runtime(found, settings), listening)


def read(
    host: str | None,
    port: int | None,
    data: Path | None,
    engine: EngineKind | None,
    comfyui_url: list[str] | None,
    speed: float | None,
) -> Settings:
    """
    Return the environment's settings, with the options on top.

    Raises:
        BadSettings: naming what holds nonsense.
    """
    from common.settings import Settings

    return Settings.read(
        host=host,
        port=port,
        data=data,
        engine=engine.value if engine else None,
        comfyui_urls=tuple(comfyui_url) if comfyui_url else None,
        engine_speed=speed,
    )


@contextmanager
def listener(settings: Settings) -> Iterator[socket.socket]:
    """
    Lend the socket to serve on: the port that was asked for, or the next free one.

    Raises:
        Stop: it is taken, naming by whom.
    """
    from common.ports import PortTaken, listen

    asked = "port" in settings.model_fields_set
    try:
        listening = listen(settings.host, settings.port, only=asked)
    except PortTaken as error:
        raise Stop(
            str(error), "stop that process, or choose another --port", PORT_TAKEN
        ) from None
    except OSError as error:
        raise Stop(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}",
            "choose another --host or --port",
            WRONG_USE,
        ) from None
    with listening:
        port = listening.getsockname()[1]
        if settings.port not in (0, port):
            say(f"port {settings.port} is taken; using {port}")
        yield listening


@contextmanager
def start_errors() -> Iterator[None]:
    """Say what keeps a service from starting, without a traceback."""
    from common.jobs.commits import Unusable
    from common.ports import NoFreePort
    from common.runtime import DataInUse

    try:
        yield
    except (DataInUse, Unusable, NoFreePort) as error:
        raise Stop(str(error), code=WRONG_USE) from None
    except OSError as error:
        if error.filename is None:
            raise
        raise Stop(
            f"cannot write {error.filename}: {error.strerror}",
            "choose another folder with --data",
            WRONG_USE,
        ) from None

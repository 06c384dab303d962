"""wan engine embedded: the embedded engine alone, for services that run elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from common.cli.screen import PORT_TAKEN, WRONG_USE, Stop

app = typer.Typer(help="Run an engine by itself.", no_args_is_help=True)

PORT = 8188


@app.callback()
def engine() -> None:
    """Run an engine by itself."""


@app.command()
def embedded(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help=f"Default: the first free one from {PORT}."
        ),
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder for its files.")] = Path(
        "data/engine"
    ),
    speed: Annotated[
        float, typer.Option(min=0, help="1: paced as a GPU; 0: as fast as it can.")
    ] = 1.0,
) -> None:
    """Serve ComfyUI's protocol with procedural pictures, without a GPU."""
    from common.engine.server import CannotListen, run
    from common.engine.settings import EngineSettings
    from common.ports import NoFreePort, holder, next_free

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        chosen = next_free(host, PORT) if port is None else port
        run(EngineSettings(data=data, host=host, port=chosen, speed=speed))
    except (NoFreePort, OSError) as error:
        raise Stop(f"cannot listen on {host}: {error}", code=WRONG_USE) from None
    except CannotListen as error:
        by = holder(chosen)
        hint = f"{by} holds the port" if by else None
        raise Stop(str(error), hint, PORT_TAKEN) from None

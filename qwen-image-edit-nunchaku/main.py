"""
Serve Qwen image edit on :8000: ../.venv/bin/python main.py.

The model runs in an engine of its own, which is started, watched and ended with the
service: on the GPU where torch finds one that nunchaku knows and the weights are there,
else as the embedded editor.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # so that it starts without being installed

from common.cli.screen import PLAIN, guarded, plain_errors, say  # noqa: E402
from common.cli.serve import listener, start_errors  # noqa: E402

PORT = 8000


class EngineKind(StrEnum):
    """What edits the pictures."""

    NUNCHAKU = "nunchaku"
    EMBEDDED = "embedded"


Engine = Annotated[
    EngineKind | None, typer.Option(help="Default: nunchaku where it can run.")
]

app = typer.Typer(**PLAIN)


@app.command()
def main(
    host: Annotated[str | None, typer.Option(help="Default: WAN_HOST.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help=f"Default: WAN_PORT, else {PORT}."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder for jobs and files; default: WAN_DATA.")
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            help="Folder whose `models` holds the weights; default: WAN_MODELS, else"
            " ./data/weights. What is absent is fetched into a folder that is named."
        ),
    ] = None,
    engine: Engine = None,
) -> None:
    """Serve Qwen image edit until Ctrl-C or SIGTERM."""
    with plain_errors(), start_errors():
        from common import logs
        from common.api.server import serve
        from common.engine.editors.weights import obstacle
        from common.runtime import Runtime
        from common.service import load
        from common.settings import Settings

        given = {"host": host, "port": port, "data": data, "models": models}
        settings = Settings.read(**given, engine=engine or EngineKind.NUNCHAKU)
        if engine is None and (
            why := obstacle(settings.models_folders, fetched=settings.supplies)
        ):
            say(f"the embedded editor serves, not the model: {why}")
            settings = Settings.read(**given, engine=EngineKind.EMBEDDED)
        if "port" not in settings.model_fields_set:
            settings = settings.model_copy(update={"port": PORT})
        logs.set_up(settings)
        with listener(settings) as listening:
            serve(Runtime(load(HERE), settings), listening)


if __name__ == "__main__":
    sys.exit(guarded(lambda: app(prog_name="main.py")))

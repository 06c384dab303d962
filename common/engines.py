"""
The engines of a service: ComfyUIs that somebody else runs, or a child of our own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from common.comfy import Comfy
from common.comfy.commands import comfyui_command, embedded_command
from common.comfy.process import EngineDidNotStart, LocalEngine
from common.disk import atomic_write
from common.events import EngineFile
from common.models.layer import Layer
from common.models.path_map import path_map
from common.ports import Claim, claim, insisted
from common.settings import BadSettings, Settings

log = logging.getLogger(__name__)

RETRY_S = 5.0


class RemoteEngine:
    """A ComfyUI at an address; whoever runs it restarts it."""

    ours = False
    resting = False

    def __init__(self, url: str, client_file: Path) -> None:
        self.comfy = Comfy(url, client_file=client_file)

    async def start(self) -> None:
        """Begin to connect."""
        await self.comfy.start()

    async def aclose(self) -> None:
        """Close the connection."""
        await self.comfy.aclose()

    async def restart(self) -> None:
        """Do what can be done from afar: open a fresh socket."""
        log.warning("%s needs a restart, and is not ours to restart", self.comfy.url)
        await self.comfy.reconnect()

    def killed_by_kernel(self) -> bool:
        """Unknown from afar."""
        return False

    def saved(self, file: EngineFile) -> None:
        """Know of no folder: it is on another machine."""

    def tidy(self, prompt_id: str) -> None:
        """Leave its output folder alone: it is on another machine."""

    def trouble(self) -> str | None:
        """Say why it cannot be used, if it cannot."""
        if not self.comfy.socket_alive:
            return f"no ComfyUI answers at {self.comfy.url}"
        if self.resting:
            return f"ComfyUI at {self.comfy.url} answers but runs no jobs: restart it"
        return None


class OwnEngine:
    """An engine that we start, watch over, and end."""

    ours = True
    resting = False

    def __init__(
        self, process: LocalEngine, port: Claim, output_folder: Path | None
    ) -> None:
        self.comfy = Comfy(process.url)
        self._process = process
        self._port = port
        self._output_folder = output_folder
        self._starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to start it; loading torch takes long, and jobs can wait meanwhile."""
        self._starting = asyncio.create_task(self._start(), name="engine start")

    async def _start(self) -> None:
        while True:
            try:
                await self._process.start()
            except EngineDidNotStart as error:
                log.error("%s", error)  # noqa: TRY400 - it says it all
                await asyncio.sleep(RETRY_S)
            else:
                break
        await self.comfy.start()

    async def aclose(self) -> None:
        """End it."""
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError):
                await self._starting
        await self.comfy.aclose()
        await self._process.aclose()
        self._port.release()

    async def restart(self) -> None:
        """Kill it and start it again."""
        try:
            await self._process.restart()
        except EngineDidNotStart as error:
            log.error("%s", error)  # noqa: TRY400 - it says it all
        await self.comfy.reconnect()

    def killed_by_kernel(self) -> bool:
        """Tell whether its last death was for want of host memory."""
        deaths = self._process.deaths
        return bool(deaths) and deaths[-1].oom_killed

    def saved(self, file: EngineFile) -> Path | None:
        """Return where a file that it saved lies, when it is where it should be."""
        if self._output_folder is None or file.type != "output":
            return None
        folder = self._output_folder.resolve()
        path = (folder / file.subfolder / file.filename).resolve()
        return path if path.is_relative_to(folder) and path.is_file() else None

    def tidy(self, prompt_id: str) -> None:
        """Remove a prompt's own folders from the engine's output and input."""
        if self._output_folder is not None:
            for folder in (self._output_folder, self._output_folder.parent / "input"):
                shutil.rmtree(folder / "wan" / prompt_id, ignore_errors=True)

    def trouble(self) -> str | None:
        """Say why it cannot be used, if it cannot."""
        if self.comfy.socket_alive:
            return None
        return self._process.trouble or "the engine is starting"


AnyEngine = RemoteEngine | OwnEngine


def of(settings: Settings, data: Path) -> list[AnyEngine]:
    """
    Return the engines that the settings ask for, not started.

    Raises:
        BadSettings: they ask for ComfyUI without saying where it is.
    """
    if settings.engine_kind != "comfyui":
        port = _port(settings)
        folder = data / "engine"
        editor = "qwen" if settings.engine_kind == "nunchaku" else "embedded"
        # On a volume that is named, or where we put them.
        named = settings.models is not None or editor == "qwen" or settings.supplies
        command = embedded_command(
            port.port,
            folder,
            settings.engine_speed,
            settings.models_folders if named else (),
            editor,
            strict=settings.supplies,
        )
        root = Path(__file__).parent.parent
        return [_own(command, port, data, cwd=root, output=folder / "output")]
    if settings.engine_urls:
        return [
            RemoteEngine(url, data / f"client-{number}")
            for number, url in enumerate(settings.engine_urls)
        ]
    port = _port(settings)
    if settings.comfyui_dir is not None:
        folder = settings.comfyui_dir
        if not (folder / "main.py").is_file():
            raise BadSettings("COMFYUI_DIR: there is no main.py in that folder")
        home = _home(folder, data)
        command = comfyui_command(
            folder,
            _python_of(folder),
            port.port,
            settings.comfy_launch_args,
            home=home if home != folder else None,
            model_paths=_model_paths(settings, data),
        )
        return [_own(command, port, data, cwd=folder, output=home / "output")]
    if settings.comfyui_cmd:
        command = _words(settings.comfyui_cmd, port.port)
        return [_own(command, port, data, cwd=None, output=None)]
    raise BadSettings(
        "WAN_ENGINE is comfyui, so set COMFYUI_URL to its address, or COMFYUI_DIR to"
        " its folder, or COMFYUI_CMD to the command that starts it on port {port}"
    )


def _own(
    command: list[str],
    port: Claim,
    data: Path,
    *,
    cwd: Path | None,
    output: Path | None,
) -> OwnEngine:
    process = LocalEngine(
        command,
        url=f"http://127.0.0.1:{port.port}",
        log_file=data / "engine.log",
        cwd=cwd,
    )
    return OwnEngine(process, port, output)


def _home(folder: Path, data: Path) -> Path:
    """Return where ComfyUI keeps its files: ours, when its folder is read-only."""
    if os.access(folder, os.W_OK):
        return folder
    home = data / "comfyui"
    for name in ("input", "output", "temp", "user"):
        (home / name).mkdir(parents=True, exist_ok=True)
    return home


def _model_paths(settings: Settings, data: Path) -> Path | None:
    """Write down where the weights are, for ComfyUI; None where it knows."""
    if settings.models is None and not settings.models_layers:
        return None
    roots = (*settings.models_layers, settings.weights_root)
    path = data / "extra_model_paths.yaml"
    data.mkdir(parents=True, exist_ok=True)
    layers = (Layer.open(root, writable=False) for root in roots)
    atomic_write(path, path_map(layers).encode())
    return path


def _words(command: str, port: int) -> list[str]:
    return shlex.split(command.replace("{port}", str(port)), posix=os.name != "nt")


def _python_of(folder: Path) -> str:
    """Return the Python of ComfyUI's own environment, else ours."""
    for name in (".venv", "venv"):
        for python in (
            folder / name / "bin" / "python",
            folder / name / "Scripts" / "python.exe",
        ):
            if python.is_file():
                return str(python)
    return sys.executable


def _port(settings: Settings) -> Claim:
    """Return the engine's port: the one asked for, or the next free one from 8188."""
    if "engine_port" in settings.model_fields_set and settings.engine_port:
        return insisted(settings.engine_port)
    return claim("127.0.0.1", settings.engine_port)

"""The command lines of a local engine: a ComfyUI folder, or the embedded engine."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def comfyui_command(
    folder: Path, python: str, port: int, extra_args: str = ""
) -> list[str]:
    """
    Return how to start the ComfyUI in `folder`.

    It listens on loopback only, and keeps the prompt out of its files: without
    `--disable-metadata` each mp4 carries the whole workflow. `extra_args` come last,
    so they win.
    """
    return [
        python,
        str(folder / "main.py"),
        *("--listen", "127.0.0.1", "--port", str(port)),
        *("--disable-auto-launch", "--disable-metadata"),
        *("--preview-method", "auto"),
        *shlex.split(extra_args, posix=os.name != "nt"),
    ]


def embedded_command(
    port: int,
    data: Path,
    speed: float,
    models: Path | None = None,
    editor: str = "embedded",
) -> list[str]:
    """Return how to start the embedded engine with this Python."""
    command = [sys.executable, "-m", "common.engine", "--port", str(port)]
    command += ["--data", str(data), "--speed", f"{speed:g}", "--disable-metadata"]
    command += ["--editor", editor] if editor != "embedded" else []
    return command if models is None else [*command, "--models", str(models)]

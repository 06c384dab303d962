"""The command lines of a local engine: a ComfyUI folder, or the embedded engine."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def comfyui_command(
    folder: Path,
    python: str,
    port: int,
    extra_args: str = "",
    *,
    home: Path | None = None,
    model_paths: Path | None = None,
) -> list[str]:
    """
    Return how to start the ComfyUI in `folder`.

    It listens on loopback only, and keeps the prompt out of its files: without
    `--disable-metadata` each mp4 carries the whole workflow. `extra_args` come last,
    so they win.

    Args:
        home: where its own folders are, when not below `folder`.
        model_paths: an extra_model_paths.yaml.
    """
    more = []
    if home is not None:
        for name in ("input", "output", "temp", "user"):
            more += [f"--{name}-directory", str(home / name)]
        more += ["--database-url", f"sqlite:///{(home / 'comfyui.db').as_posix()}"]
    if model_paths is not None:
        more += ["--extra-model-paths-config", str(model_paths)]
    return [
        python,
        str(folder / "main.py"),
        *("--listen", "127.0.0.1", "--port", str(port)),
        *("--disable-auto-launch", "--disable-metadata"),
        *("--preview-method", "auto"),
        *more,
        *shlex.split(extra_args, posix=os.name != "nt"),
    ]


def embedded_command(
    port: int,
    data: Path,
    speed: float,
    models: Sequence[Path] = (),
    editor: str = "embedded",
    *,
    strict: bool = False,
) -> list[str]:
    """
    Return how to start the embedded engine with this Python.

    Args:
        models: `models` folders as ComfyUI has them, highest layer first.
        strict: weights must be there, although nothing reads them.
    """
    command = [sys.executable, "-m", "common.engine", "--port", str(port)]
    command += ["--data", str(data), "--speed", f"{speed:g}", "--disable-metadata"]
    command += ["--editor", editor] if editor != "embedded" else []
    command += ["--strict"] if strict else []
    for folder in models:
        command += ["--models", str(folder)]
    return command

"""What an embedded engine is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class EngineSettings:
    """Settings of one engine; each has its own data folder."""

    data: Path  #: holds input/, output/, temp/ and perhaps models/
    host: str = "127.0.0.1"
    port: int = 8188  #: 0 = any free one
    speed: float = (
        1.0  #: how fast the pretended work goes; 0 = no pretended work at all
    )
    #: models folders as ComfyUI has them: loras/, vae/, …; the first with a file counts
    models: tuple[Path, ...] = ()
    strict: bool = False  #: offer only weights that are there, as ComfyUI does
    metadata: bool = True  #: write the workflow into each file, as ComfyUI does
    editor: Literal["embedded", "qwen"] = "embedded"  #: qwen = the real model
    faults: bool = False  #: serve /embedded/*, where a test breaks things on purpose

    def folder(self, kind: str) -> Path:
        """Return the folder of files of a kind: input, output or temp."""
        return (self.data / kind).resolve()

    def pretended_s(self, seconds: float) -> float:
        """Return how long work that takes `seconds` at speed 1 takes here."""
        return seconds / self.speed if self.speed > 0 else 0.0

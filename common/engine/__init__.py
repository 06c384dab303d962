"""
A server that speaks ComfyUI's protocol and needs no GPU and no weights.

It runs the same workflow graphs with procedural nodes on numpy and writes real H.264,
so that everything around ComfyUI can be built, tried and tested on any machine. Its
films are painted, not generated: `/system_stats` says `"embedded": true`, and every
frame carries a watermark.

    python -m common.engine --data DIR

    async with serve(EngineSettings(port=0, data=folder)) as engine:
        ...  # engine.url
"""

from __future__ import annotations

from common.engine.engine import Engine
from common.engine.server import CannotListen, run, serve
from common.engine.settings import EngineSettings

__all__ = ["CannotListen", "Engine", "EngineSettings", "run", "serve"]

"""Start an embedded engine: python -m common.engine --data DIR."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from common.engine.server import CannotListen, run
from common.engine.settings import EngineSettings


def main() -> int:
    """Read the command line and serve until a signal."""
    parser = argparse.ArgumentParser("python -m common.engine", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188, help="0 = any free one")
    parser.add_argument("--data", type=Path, required=True, help="folder for all files")
    parser.add_argument(
        "--models",
        type=Path,
        action="append",
        default=[],
        help="a models folder as in ComfyUI; several: the first that has a file counts",
    )
    parser.add_argument(
        "--strict", action="store_true", help="offer only weights that are there"
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, help="of pretended work; 0 = none of it"
    )
    parser.add_argument(
        "--editor",
        choices=["embedded", "qwen"],
        default="embedded",
        help="what edits pictures; qwen = the model in --models, on a GPU",
    )
    parser.add_argument("--disable-metadata", action="store_true")
    parser.add_argument("--faults", action="store_true", help="let tests break things")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = EngineSettings(
        data=given.data,
        host=given.host,
        port=given.port,
        speed=given.speed,
        models=tuple(given.models),
        strict=given.strict,
        editor=given.editor,
        metadata=not given.disable_metadata,
        faults=given.faults,
    )
    try:
        run(settings)
    except CannotListen as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

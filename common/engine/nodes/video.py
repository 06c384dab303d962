"""Frames to a film, and a film to a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from common.engine import files
from common.engine.encode import write_mp4
from common.engine.run import Node, Run, Shown
from common.engine.values import Frames, Pixels, Sound, Video


def create_video(
    run: Run, images: Frames, fps: float, audio: Sound | None = None
) -> tuple[Any, ...]:
    """Give frames a rate, exact to a thousandth, and perhaps a sound."""
    return (Video(images, Fraction(round(fps * 1000), 1000), audio),)


def save_video(
    run: Run,
    video: Video,
    filename_prefix: str,
    format: str,
    codec: str,
) -> Shown:
    """Write H.264 in MP4, with the whole graph in its metadata as ComfyUI does."""
    target = files.next_file(run.settings, "output", filename_prefix, ".mp4")
    name = target.name(target.counter)
    path = target.folder / name
    metadata = {}
    if run.settings.metadata:
        metadata = {"prompt": json.dumps(run.item.graph)}
        metadata |= {
            key: json.dumps(value)
            for key, value in run.item.extra_data.get("extra_pnginfo", {}).items()
        }
    write_mp4(path, video, _checked(run, video.frames), metadata)
    if run.faults.take("half_file"):
        whole = path.read_bytes()
        # The index comes last, so this half of the frames has none.
        path.write_bytes(whole[: whole.index(b"moov") // 2])
    if run.faults.take("no_file"):
        path.unlink()
    saved = {"filename": name, "subfolder": target.subfolder, "type": "output"}
    return Shown({"images": [saved], "animated": [True]})


def _checked(run: Run, frames: Frames) -> Iterator[Pixels]:
    """Give way to an interrupt before each frame: ComfyUI would only after the last."""
    for pixels in frames:
        run.check()
        yield pixels


NODES: dict[str, Node] = {"CreateVideo": create_video, "SaveVideo": save_video}

"""Write frames as H.264 in MP4: the same frames are the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import av

from common.engine.values import Pixels, Video

#: x264 in two threads, on every machine: their number shapes the bytes.
OPTIONS = {"preset": "superfast", "crf": "20", "threads": "2", "g": "48"}


def write_mp4(
    path: Path, video: Video, frames: Iterable[Pixels], metadata: Mapping[str, str]
) -> None:
    """
    Write a film with exactly its size, number of frames and rate.

    If anything stops it, such as an interrupt between two frames, no file is left.

    Raises:
        ValueError: an odd width or height, which yuv420p cannot hold.
    """
    width, height = video.frames.width, video.frames.height
    if width % 2 or height % 2:
        raise ValueError(
            f"width and height must be even for H.264, got {width}x{height}"
        )
    try:
        with av.open(
            str(path), "w", format="mp4", options={"movflags": "use_metadata_tags"}
        ) as container:
            container.metadata.update(metadata)
            stream = container.add_stream("libx264", rate=video.fps, options=OPTIONS)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuv420p"
            for pixels in frames:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except BaseException:
        path.unlink(missing_ok=True)
        raise

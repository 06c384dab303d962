"""Write frames as H.264 in MP4: the same frames are the same bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import av
import numpy as np

from common.engine.values import Pixels, Sound, Video

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
            sound = video.sound and container.add_stream(
                "aac", rate=video.sound.rate, layout="mono"
            )
            for pixels in frames:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if video.sound and sound:
                container.mux(sound.encode(_heard(video.sound, video)))
                container.mux(sound.encode(None))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _heard(sound: Sound, video: Video) -> av.AudioFrame:
    """Return the sound, up to the last frame's end. Source: ComfyUI's CreateVideo."""
    count = math.ceil(sound.rate / video.fps * video.frames.count)
    samples = np.ascontiguousarray(sound.samples[None, :count])
    frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
    frame.sample_rate = sound.rate
    frame.pts = 0
    return frame

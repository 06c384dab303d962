"""
The still that stands for a video: made when someone first asks for it.

A job does not wait for it, and what nobody looks at costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.disk import partial

if TYPE_CHECKING:
    from PIL import Image

WIDTH = 1280  #: pixels, at most
QUALITY = 85  #: of JPEG


def make_poster(video: Path, poster: Path) -> None:
    """
    Save the middle frame of a published MP4 as JPEG. It decodes: call it in a thread.

    Raises:
        OSError: the video is gone or broken, or the disk is full.
    """
    import av

    try:
        with partial(poster) as part:
            image = _middle(video)
            image.save(part, "JPEG", quality=QUALITY)
            part.replace(poster)
    except (av.FFmpegError, IndexError) as error:  # IndexError: no stream is left
        raise OSError(f"{video.name} cannot be decoded") from error


def _middle(video: Path) -> Image.Image:
    """Decode from the key frame before the middle up to the middle."""
    import av

    # Named: FFmpeg's own guess may open URLs or sockets.
    with av.open(str(video.absolute()), "r", format="mov") as film:
        stream = film.streams.video[0]
        stream.thread_type = "AUTO"
        middle = (stream.start_time or 0) + (stream.duration or 0) // 2
        film.seek(middle, stream=stream)
        for frame in film.decode(stream):
            if (frame.pts or 0) + (frame.duration or 0) > middle:
                break
        else:
            raise OSError(f"{video.name} ends before its middle")
        scale = min(1.0, WIDTH / frame.width)
        image: Image.Image = frame.to_image(  # type: ignore[no-untyped-call]
            width=round(frame.width * scale),
            height=max(1, round(frame.height * scale)),
        )
        return image

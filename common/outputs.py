"""
What the engine made, checked and published: whole, as asked for, without its graph.

A file is decoded to its last frame and copied in the same pass, because ComfyUI writes
outputs in place: a crash leaves half a file under the right name. It is copied and not
moved, because ComfyUI writes the whole prompt into a file's metadata.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from common.disk import DISK_FULL, partial, publish_part
from common.errors import NoSpace
from common.job import Expected, Output

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

THREADS_PIXELS = 8_000_000  #: below, starting threads takes longer than decoding

# SaveVideo writes rates as thousandths; Matroska rounds times to milliseconds.
_RATE_TOLERANCE = 0.005
# An encoder fills up its last frame, of 64 ms at 16 kHz, and starts one early.
_SOUND_TOLERANCE_S = 0.25


class BadOutput(Exception):
    """The engine's file is not what was asked for; the text is for people."""


@dataclass(frozen=True)
class _Clip:
    """What was decoded."""

    width: int
    height: int
    frames: int
    fps: float
    audio: bool


def publish(
    source: Path, folder: Path, expected: Expected, *, name: str | None = None
) -> Output:
    """
    Check one file and publish it in `folder`. It decodes: call it in a thread.

    Videos become MP4 (packets are copied, not encoded again); images become PNG, RGB
    or RGBA. A reader sees whole files only; a failure leaves nothing.

    Args:
        source: the engine's file, or a copy of it: MP4, MOV, WebM or Matroska; PNG,
            JPEG or WebP. It stays.
        name: "video.mp4" or "image.png" when None; "video-2.mp4" for a second one,
            whose poster is called "poster-2.jpg" (see `common.poster`).

    Raises:
        BadOutput: broken, cut off, or with another size, length or rate.
        NoSpace: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if expected.kind == "video":
            return _publish_video(source, folder / (name or "video.mp4"), expected)
        return _publish_image(source, folder / (name or "image.png"), expected)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise NoSpace("The disk that holds the outputs is full") from error
        raise


def _publish_video(source: Path, path: Path, expected: Expected) -> Output:
    with partial(path) as part:
        clip = _copy_video(source, part, expected)
        output = Output(
            name=path.name,
            kind="video",
            content_type="video/mp4",
            size_bytes=part.stat().st_size,
            sha256=_sha256(part),
            width=clip.width,
            height=clip.height,
            frames=clip.frames,
            fps=round(clip.fps, 3),
            duration_s=round(clip.frames / clip.fps, 3),
            audio=clip.audio,
            poster=f"poster{path.stem.removeprefix('video')}.jpg",
        )
        publish_part(part, path)
        return output


def _publish_image(source: Path, path: Path, expected: Expected) -> Output:
    from PIL import Image

    with partial(path) as part:
        try:
            with Image.open(source, formats=("PNG", "JPEG", "WEBP")) as opened:
                if getattr(opened, "n_frames", 1) != 1:
                    raise BadOutput("The image is animated")
                clear = opened.has_transparency_data
                image = opened.convert("RGBA" if clear else "RGB")
        except (
            OSError,
            SyntaxError,
            ValueError,
            EOFError,
            Image.DecompressionBombError,
        ) as error:
            raise BadOutput("The image cannot be decoded") from error
        _compare(expected, width=image.width, height=image.height)
        image.info.clear()  # Pillow would write the profile back
        image.save(part, "PNG")
        output = Output(
            name=path.name,
            kind="image",
            content_type="image/png",
            size_bytes=part.stat().st_size,
            sha256=_sha256(part),
            width=image.width,
            height=image.height,
        )
        publish_part(part, path)
        return output


def _copy_video(source: Path, part: Path, expected: Expected) -> _Clip:
    """Decode a video to its end; its packets go to `part`."""
    import av

    try:
        with (
            source.open("rb") as file,
            # Named and from bytes: FFmpeg's own guess may open URLs or sockets (SDP).
            av.open(file, "r", format=_demuxer(file)) as film,
            # Without "bitexact" FFmpeg writes its version into the file.
            av.open(
                str(part.absolute()),
                "w",
                format="mp4",
                options={"movflags": "+faststart", "fflags": "+bitexact"},
            ) as copy,
        ):
            return _copy_packets(film, copy, expected)
    except av.FFmpegError as error:
        if error.errno in DISK_FULL:
            raise
        raise BadOutput("The video cannot be decoded to its end") from error


def _copy_packets(
    film: InputContainer, copy: OutputContainer, expected: Expected
) -> _Clip:
    if len(film.streams.video) != 1:
        raise BadOutput(f"The file has {len(film.streams.video)} video streams, not 1")
    video = film.streams.video[0]
    if video.width * video.height * (video.frames or 100) > THREADS_PIXELS:
        video.thread_type = "AUTO"
    else:
        video.codec_context.thread_count = 1
    # Nobody looks at these frames: unsmoothed ones come a sixth sooner.
    video.codec_context.options = {"skip_loop_filter": "all"}
    sounds = film.streams.audio
    kept = [video, *sounds]
    copies = {stream.index: copy.add_stream_from_template(stream) for stream in kept}
    frames = 0
    heard_s = 0.0
    for packet in film.demux(kept):
        if packet.is_corrupt:
            raise BadOutput("The video is cut off")
        if packet.stream.index == video.index:
            for frame in video.decode(packet):
                _check_frame(frame, video)
                frames += 1
        elif packet.stream.index == sounds[0].index:
            for sound in sounds[0].decode(packet):
                heard_s += sound.samples / sound.sample_rate
        if packet.size:  # an empty one only flushes the decoder
            packet.stream = copies[packet.stream.index]
            copy.mux(packet)
    return _judge(video, frames, heard_s, expected)


def _check_frame(frame: VideoFrame, video: VideoStream) -> None:
    if frame.is_corrupt:
        # The decoder painted over what it could not read. It finds what is missing;
        # of random bit flips within a frame, H.264 lets it notice two in three.
        raise BadOutput("The video has a damaged frame")
    if (frame.width, frame.height) != (video.width, video.height):
        raise BadOutput("The video changes its size")


def _judge(
    video: VideoStream, frames: int, heard_s: float, expected: Expected
) -> _Clip:
    """Compare what was decoded with what the file claims and what was asked for."""
    if not frames:
        raise BadOutput("The video has no frames")
    if video.frames not in (0, frames):  # Matroska does not say
        raise BadOutput(f"The video has {frames} of its {video.frames} frames")
    fps = float(video.average_rate or video.guessed_rate or 0)
    if not fps:
        raise BadOutput("The video has no frame rate")
    _compare(expected, width=video.width, height=video.height, frames=frames)
    if expected.fps and not math.isclose(fps, expected.fps, rel_tol=_RATE_TOLERANCE):
        raise BadOutput(f"The video has {fps:g} fps, not {expected.fps:g}")
    if expected.audio:
        _check_sound(heard_s, frames / fps)
    return _Clip(video.width, video.height, frames, fps, heard_s > 0)


def _check_sound(heard_s: float, seen_s: float) -> None:
    if not heard_s:
        raise BadOutput("The video has no sound")
    if abs(heard_s - seen_s) > _SOUND_TOLERANCE_S:
        raise BadOutput(f"The sound lasts {heard_s:.2f} s, the video {seen_s:.2f} s")


def _compare(expected: Expected, **found: int) -> None:
    for what, value in found.items():
        asked = getattr(expected, what)
        if asked not in (None, value):
            raise BadOutput(f"The {expected.kind} has {what} {value}, not {asked}")


def _demuxer(file: BinaryIO) -> str:
    """Return FFmpeg's name for the container, by its first bytes."""
    head = file.read(8)
    file.seek(0)
    if not head:
        raise BadOutput("The file is empty")
    if head[4:] == b"ftyp":
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    raise BadOutput("The file is not an MP4, MOV, WebM or Matroska video")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

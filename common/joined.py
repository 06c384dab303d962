"""
Parts of a film, one after the other as one, with the sound that goes under them.

A long clip is saved window by window, so that ComfyUI need not hold all of its frames
until the last one is made. Pictures are copied, not encoded again.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.disk import DISK_FULL
from common.outputs import BadOutput

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream


def join(parts: Sequence[Path], sounds: Sequence[Path], path: Path) -> None:
    """
    Write one MP4 of several. It takes seconds: call it in a thread.

    Args:
        parts: MP4s of one encoder: same size, rate and settings.
        sounds: recordings as `inputs.audio` writes them, one after the other; they are
            cut where the pictures end.

    Raises:
        BadOutput: a part is broken, or unlike the first one.
        OSError: the disk is full, or a file is gone.
    """
    import av

    try:
        with av.open(
            str(path.absolute()), "w", format="mp4", options={"fflags": "+bitexact"}
        ) as film:
            _write(film, parts, sounds)
    except (av.FFmpegError, IndexError) as error:  # IndexError: there are no pictures
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        raise BadOutput("A part of the video cannot be read") from error


def _write(
    film: OutputContainer, parts: Sequence[Path], sounds: Sequence[Path]
) -> None:
    with _opened(parts[0]) as first:
        like = first.streams.video[0]
        video = film.add_stream_from_template(like)
        heard = _Heard(film, sounds) if sounds else None
        frames = 0
        for part in parts:
            with _opened(part) as source:
                frames += _copy(source, frames, like, film, video)
            # By turns: a player needs both before it has read the whole file.
            if heard is not None and like.average_rate:
                heard.until(float(frames / like.average_rate))
        if heard is not None:
            heard.end()


def _opened(part: Path) -> InputContainer:
    import av

    # Named: FFmpeg's own guess may open URLs or sockets.
    return av.open(str(part.absolute()), "r", format="mov")


def _copy(
    source: InputContainer,
    before: int,
    like: VideoStream,
    film: OutputContainer,
    video: VideoStream,
) -> int:
    """Copy the pictures of a part that `before` frames precede; return how many."""
    stream = source.streams.video[0]
    if (
        stream.codec_context.extradata != like.codec_context.extradata
        or stream.average_rate != like.average_rate
        or stream.average_rate is None
        or stream.time_base is None
    ):
        raise BadOutput("A part of the video is encoded unlike the first")
    shift = round(before / stream.average_rate / stream.time_base)
    frames = 0
    for packet in source.demux(stream):
        if packet.dts is None or packet.pts is None:
            continue  # an empty one that only flushes the decoder
        packet.dts += shift
        packet.pts += shift
        packet.stream = video
        film.mux(packet)
        frames += 1
    return frames


class _Heard:
    """The sound, encoded as far as the pictures have come."""

    def __init__(self, film: OutputContainer, sounds: Sequence[Path]) -> None:
        self._film = film
        self._samples = bytearray()
        for sound in sounds:
            with wave.open(str(sound), "rb") as recording:
                self._rate = recording.getframerate()
                self._samples += recording.readframes(recording.getnframes())
        self._stream: AudioStream = film.add_stream(
            "aac", rate=self._rate, layout="mono"
        )
        self._done = 0  #: samples

    def until(self, seconds: float) -> None:
        """Encode what is heard up to a moment."""
        from av import AudioFrame

        end = min(round(seconds * self._rate), len(self._samples) // 2)
        if end > self._done:
            frame = AudioFrame("s16", "mono", end - self._done)
            frame.planes[0].update(self._padded(end, frame.planes[0].buffer_size))
            frame.sample_rate, frame.pts = self._rate, self._done
            self._film.mux(self._stream.encode(frame))
            self._done = end

    def end(self) -> None:
        """Encode what the encoder still holds."""
        self._film.mux(self._stream.encode(None))

    def _padded(self, end: int, size: int) -> bytes:
        """Return samples as FFmpeg lays them out: rows end at a round address."""
        return bytes(self._samples[self._done * 2 : end * 2]).ljust(size, b"\0")

"""
An audio file that someone sent, as one that is safe to hand on.

Samples are all that goes through: whatever comes in is decoded under limits and written
anew, so that ComfyUI only ever sees a WAV file that we made, in the form that its audio
encoders listen to.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import (
    FieldError,
    InvalidInput,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from common.inputs.bare import Broken
from common.inputs.sound import bare

if TYPE_CHECKING:
    from av import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MAX_BYTES = 50 << 20  #: ten minutes of MP3 are 10 MiB, of a CD 100
MIN_S, MAX_S = 0.2, 600.0
SLACK_S = 0.5  #: encoders fill up their last frame; it is cut off
MIN_RATE, MAX_RATE = 8_000, 96_000
MAX_CHANNELS = 8
# What wav2vec2 was trained on. Source: ComfyUI's comfy/audio_encoders.
RATE = 16_000
# Editors leave a tag or half a frame at the end of an MP3.
MAX_BAD_PACKETS = 3
# Of a coded packet; a decoder would refuse no length. FLAC's largest is 65,535.
MAX_FRAME_SAMPLES = 1 << 20

_CODECS = frozenset({"mp3", "mp3float", "aac", "alac", "opus", "libopus", "vorbis"})
_KINDS = "a WAV, MP3, M4A, Opus or Ogg file"
_HINT = f"send {_KINDS} of {MIN_S:g} to {MAX_S:g} seconds"


@dataclass(frozen=True)
class Speech:
    """A recording: 16 kHz, one channel, without tags."""

    data: bytes  #: WAV of 16-bit samples, written by us
    duration_s: float


def decode(data: bytes, *, field: str = "audio") -> Speech:
    """
    Check an audio file and write it anew. It takes seconds: call it in a thread.

    Channels are mixed into one. Memory is that of the result, 19 MB for ten minutes,
    whatever the file claims; decoding ends where the limit is passed.

    Raises:
        UnsupportedMediaType: of another kind, whatever its name or claimed type; also
            a video, even one with sound.
        PayloadTooLarge: over `MAX_BYTES`.
        InvalidInput: broken, empty, too long, or with a rate or channels that no
            recording has.
    """
    if len(data) > MAX_BYTES:
        problem = FieldError(field, f"is over {MAX_BYTES >> 20} MiB", _HINT)
        raise PayloadTooLarge(f"{field}: {problem.message}", errors=[problem])
    try:
        return _rewrite(*_bare(data))
    except _Foreign as foreign:
        problem = FieldError(field, str(foreign), _HINT)
        raise UnsupportedMediaType(
            f"{field}: {problem.message}", errors=[problem]
        ) from None
    except Broken as broken:
        raise InvalidInput.of(field, str(broken), _HINT) from None
    except Exception:  # noqa: BLE001 hostile bytes make FFmpeg raise about anything
        raise InvalidInput.of(field, "cannot be decoded", _HINT) from None


class _Foreign(Exception):
    """Of a kind that is not taken; the text is for people."""


def _bare(data: bytes) -> tuple[str, bytes]:
    if found := bare(data):
        return found
    raise _Foreign(f"is not {_KINDS}")


def _rewrite(container: str, data: bytes) -> Speech:
    import av

    samples = bytearray()
    # Else FFmpeg decodes a first picture too, of any kind and size, to know the stream.
    known = {"codec_whitelist": ",".join(filter(_is_known, av.codecs_available))}
    with av.open(io.BytesIO(data), "r", format=container, options=known) as opened:
        stream = _only_stream(opened)
        _check_format(stream.rate, stream.channels)
        resampler = av.AudioResampler("s16", "mono", RATE)
        for frame in _frames(opened, stream, len(data)):
            for piece in resampler.resample(frame):
                samples += bytes(piece.planes[0])[: piece.samples * 2]
            if len(samples) > (MAX_S + SLACK_S) * RATE * 2:
                raise Broken(f"is over {MAX_S:g} seconds")
        for piece in resampler.resample(None):
            samples += bytes(piece.planes[0])[: piece.samples * 2]
    del samples[int(MAX_S * RATE) * 2 :]
    if len(samples) < MIN_S * RATE * 2:
        raise Broken(f"has under {MIN_S:g} seconds of sound")
    return Speech(_wav(samples), len(samples) / 2 / RATE)


def _only_stream(opened: InputContainer) -> AudioStream:
    """Return the one recording; covers are no video, all else beside it is."""
    from av.stream import Disposition

    for video in opened.streams.video:
        if not video.disposition & Disposition.attached_pic:
            raise _Foreign("is a video")
    if len(opened.streams.audio) != 1:
        raise Broken(f"holds {len(opened.streams.audio)} recordings, not one")
    [stream] = opened.streams.audio
    codec = stream.codec_context.name
    if not _is_known(codec):
        raise _Foreign(f"is not {_KINDS}, but {codec}")
    stream.codec_context.thread_count = 1
    return stream


def _is_known(codec: str) -> bool:
    return codec in _CODECS or codec.startswith("pcm_")


def _check_format(rate: int, channels: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise Broken(f"has {rate} samples a second; {MIN_RATE} to {MAX_RATE} are taken")
    if not 1 <= channels <= MAX_CHANNELS:
        raise Broken(f"has {channels} channels; up to {MAX_CHANNELS} are taken")


def _frames(
    opened: InputContainer, stream: AudioStream, left: int
) -> Iterator[AudioFrame]:
    """Decode frame by frame; a few packets may be junk, as they are in real files."""
    import av

    bad = 0
    for packet in opened.demux(stream):
        left -= packet.size
        if left < 0:
            raise Broken("is damaged: it plays its bytes more than once")
        try:
            frames = stream.decode(packet)
        except av.error.InvalidDataError:
            bad += 1
            if bad > MAX_BAD_PACKETS:
                raise Broken("is damaged") from None
            continue
        for frame in frames:
            _check_format(frame.sample_rate, frame.layout.nb_channels)
            if frame.samples > MAX_FRAME_SAMPLES:
                raise Broken("has a frame longer than any encoder makes")
            yield frame


def _wav(samples: bytearray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE)
        written.writeframes(samples)
    return file.getvalue()

"""
The kinds of files that requests take, and what each becomes: one table.

A kind is what `Media` marks a field with. Whatever was sent leaves here decoded and
encoded anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from common.errors import FieldError, UnsupportedMediaType
from common.inputs import audio, image
from common.inputs.bare import Broken
from common.inputs.sound import bare
from common.inputs.source import IMAGE_TYPES

AUDIO_TYPES = frozenset(
    {
        "audio/m4a",
        "audio/mp3",
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "audio/opus",
        "audio/wav",
        "audio/wave",
        "audio/x-m4a",
        "audio/x-wav",
    }
)


@dataclass(frozen=True)
class Decoded:
    """A file that we wrote, and what is known of it."""

    data: bytes
    kind: str
    content_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class Kind:
    """What a field of one kind takes."""

    suffix: str  #: of the file that ComfyUI gets
    types: Collection[str]  #: that a data URI may claim
    words: str  #: for people
    decode: Callable[[bytes, str], Decoded]  #: in a thread; raises ServiceError


def _image(data: bytes, field: str) -> Decoded:
    found = image.decode(data, field=field)
    return Decoded(found.data, "image", "image/png", found.width, found.height)


def _audio(data: bytes, field: str) -> Decoded:
    found = audio.decode(data, field=field)
    return Decoded(found.data, "audio", "audio/wav", duration_s=found.duration_s)


KINDS = {
    "image": Kind(".png", IMAGE_TYPES, "a picture", _image),
    "audio": Kind(".wav", AUDIO_TYPES, "an audio file", _audio),
}


def decode(data: bytes, field: str, kinds: Collection[str]) -> Decoded:
    """
    Check a file of one of `kinds` and write it anew. Call it in a thread.

    Raises:
        UnsupportedMediaType, PayloadTooLarge, InvalidInput: naming `field`.
    """
    if not data:
        words = " or ".join(KINDS[kind].words for kind in sorted(kinds, reverse=True))
        problem = FieldError(field, "the file is empty", f"send {words}")
        raise UnsupportedMediaType(f"{field}: {problem.message}", errors=[problem])
    kind = "audio" if "image" not in kinds or _is_audio(data, kinds) else "image"
    return KINDS[kind].decode(data, field)


def _is_audio(data: bytes, kinds: Collection[str]) -> bool:
    if "audio" not in kinds:
        return False
    try:
        return bare(data) is not None
    except Broken:
        return True  # its own decoder says what is wrong

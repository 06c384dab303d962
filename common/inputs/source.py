"""
What the string in a field of a file is: an upload, a URL or the bytes themselves.

Pure. A scheme decides, never a slash: the base64 of every JPEG starts with "/9j/".
Nothing is ever a path.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection
from dataclasses import dataclass

from common.errors import InvalidInput

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp"})

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30}):", re.IGNORECASE)
_DATA = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,", re.IGNORECASE)

_USE = "send an upload id, an http(s) URL, base64 or a data URI"


@dataclass(frozen=True)
class UploadId:
    """A file that was uploaded before."""

    id: str


@dataclass(frozen=True)
class Url:
    """A file to fetch, through the guard."""

    url: str


@dataclass(frozen=True)
class Inline:
    """A file that came along."""

    data: bytes


Source = UploadId | Url | Inline


def parse(
    value: str, *, field: str = "image", types: Collection[str] = IMAGE_TYPES
) -> Source:
    """
    Decide what a string is.

    Base64 is that of RFC 4648 section 4, with its padding and without line breaks;
    the type that a data URI claims must be among `types`, its bytes are judged later.

    Raises:
        InvalidInput: naming `field`, without repeating the value.
    """
    if _UUID.fullmatch(value):
        return UploadId(value)
    scheme = _SCHEME.match(value)
    if scheme is None:
        return Inline(_base64(value, field))
    match scheme[1].lower():
        case "http" | "https":
            return Url(value)
        case "data":
            return _data_uri(value, field, types)
        case other:
            raise InvalidInput.of(field, f"{other}: is not accepted", _USE)


def _data_uri(value: str, field: str, types: Collection[str]) -> Inline:
    head = _DATA.match(value)
    if head is None or head[1].lower() not in types:
        raise InvalidInput.of(
            field,
            "is a data URI of another form than data:TYPE;base64,…",
            f"TYPE is one of {', '.join(sorted(types))}",
        )
    return Inline(_base64(value[head.end() :], field))


def _base64(text: str, field: str) -> bytes:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # also for what is not ASCII
        raise InvalidInput.of(
            field,
            "is neither an upload id, a URL nor base64",
            "base64 has A-Z a-z 0-9 + / and = to fill up, without blanks",
        ) from None
    if not data:
        raise InvalidInput.of(field, "is empty", _USE)
    return data

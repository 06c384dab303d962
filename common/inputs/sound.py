"""
Audio files judged by their structure, before a decoder sees them.

Pure. The demuxer is named by the first bytes, never guessed: FFmpeg's own guess may be
a playlist. What a few bytes could make it inflate or index without end (ID3 frames, a
compressed `moov`, sample tables, Ogg streams) is left out or refused here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from common.inputs.bare import Broken

#: Of one file. Ten minutes of AAC at 96 kHz are 56,250 frames.
MAX_SAMPLES = 200_000
#: Of one file: chunks, boxes, pages or tags. Ten minutes of Opus are at most 30,000.
MAX_PIECES = 100_000
#: Boxes within boxes; recordings have five ("moov" to "stbl").
MAX_DEPTH = 8
#: Of one file; each costs the demuxer a search at every page.
MAX_OGG_STREAMS = 4

_PARENTS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
#: Where a box says how many samples it lists.
_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
_OPEN_END = frozenset({0, 0xFFFFFFFF})  #: sizes of a file that was written to a pipe


def bare(data: bytes) -> tuple[str, bytes] | None:
    """
    Return FFmpeg's name for the container, and the file without its tags.

    None: not a WAV, MP3, M4A (MP4), Opus or Ogg file by its first bytes.

    Raises:
        Broken: not whole, or built to be larger than it looks.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav", _bare_wav(data)
    if data[4:8] == b"ftyp":
        _check_boxes(data)
        return "mov", data
    if data[:4] == b"OggS":
        _check_pages(data)
        return "ogg", data
    start = _after_id3(data)
    if start and not data[start:]:
        raise Broken("ends early")
    if _is_mp3(data[start : start + 2]):
        return "mp3", data[start:]
    return None


def _is_mp3(head: bytes) -> bool:
    """Tell the frame sync of MPEG audio; layer 0 is AAC's (ADTS)."""
    return len(head) == 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 != head[1] & 6


def _after_id3(data: bytes) -> int:
    """Return where the tags at the start end. Source: ID3v2.4, section 3.1."""
    start = 0
    tags = _counted()
    while data[start : start + 3] == b"ID3" and len(data) >= start + 10:
        next(tags)
        size = 0
        for byte in data[start + 6 : start + 10]:
            size = size << 7 | byte & 0x7F
        footer = 10 if data[start + 5] & 0x10 else 0
        start += 10 + size + footer
    return start


def _bare_wav(data: bytes) -> bytes:
    """Return the file with its format and its samples alone."""
    kept: dict[bytes, bytes] = {}
    at = 12
    chunks = _counted()
    while at + 8 <= len(data):
        next(chunks)
        name, size = struct.unpack_from("<4sI", data, at)
        body = at + 8
        if name == b"data":
            if size in _OPEN_END:
                size = len(data) - body
            if body + size > len(data):
                raise Broken("ends early")
            kept[name] = struct.pack("<4sI", name, size) + data[body : body + size]
            inner = b"WAVE" + b"".join(kept.values())
            return struct.pack("<4sI", b"RIFF", len(inner)) + inner
        if name in (b"fmt ", b"fact") and size <= 4096:
            kept.setdefault(name, data[at : body + size + size % 2])
        at = body + size + size % 2
    raise Broken("has no samples")


def _check_boxes(data: bytes) -> None:
    samples = 0
    boxes = _counted()
    for name, start, end in _boxes(data, 0, len(data)):
        next(boxes)
        if name == b"cmov":
            raise Broken("has a compressed index")
        if name in _COUNTS and end - start >= _COUNTS[name] + 4:
            samples += struct.unpack_from(">I", data, start + _COUNTS[name])[0]
        if samples > MAX_SAMPLES:
            raise Broken("lists more pieces than ten minutes have")


def _boxes(
    data: bytes, at: int, end: int, depth: int = 0
) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of each box's content, outer ones first."""
    if depth > MAX_DEPTH:
        raise Broken(f"nests its boxes over {MAX_DEPTH} deep")
    while at + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1 and at + 16 <= end:
            size = struct.unpack_from(">Q", data, start)[0]
            start += 8
        size = size or end - at
        stop = at + size
        if stop < start or (stop > end and name in _PARENTS):
            raise Broken("is damaged: a box is larger than what holds it")
        yield name, start, min(stop, end)
        if name in _PARENTS:
            yield from _boxes(data, start, stop, depth + 1)
        at = stop


def _check_pages(data: bytes) -> None:
    """Source: RFC 3533, section 6."""
    serials = set()
    at = 0
    pages = _counted()
    while at + 27 <= len(data) and data[at : at + 4] == b"OggS":
        next(pages)
        serials.add(data[at + 14 : at + 18])
        if len(serials) > MAX_OGG_STREAMS:
            raise Broken(f"holds over {MAX_OGG_STREAMS} streams")
        lengths = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(lengths) + sum(lengths)
    if at != len(data):
        raise Broken("ends early, or is damaged")


def _counted() -> Iterator[int]:
    """Count pieces; there is work to each, so there is an end to them."""
    yield from range(MAX_PIECES)
    raise Broken(f"has over {MAX_PIECES:,} pieces")

"""
Audio files judged by their structure, before a decoder sees them.

Pure. The demuxer is named by the first bytes, never guessed: FFmpeg's own guess may be
a playlist. What a few bytes could make it inflate or index without end (ID3 frames, a
compressed `moov`, sample tables, Ogg streams) is left out or refused here.
"""

from __future__ import annotations

import struct
from collections import Counter
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
#: Of one M4A; each costs a decoder. Sound, chapters and their pictures are three.
MAX_TRACKS = 8

_PARENTS = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"} | {b"mvex", b"moof", b"traf"}
)
#: Where a box says how many entries it has.
_COUNTS = {
    **dict.fromkeys((b"stsz", b"stz2"), 8),
    **dict.fromkeys((b"trun", b"stsc", b"stco", b"co64", b"elst"), 4),
}
#: What is needed to find the samples. FFmpeg would read a table in any other box too.
_KEPT = (
    _PARENTS
    | _COUNTS.keys()
    | {b"ftyp", b"mvhd", b"tkhd", b"mdhd", b"hdlr", b"stsd", b"stts"}
    | {b"trex", b"mfhd", b"tfhd", b"tfdt", b"mdat"}
)
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
        return "mov", _bare_boxes(data)
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


def _bare_boxes(data: bytes) -> bytes:
    """Return the file with all that is not needed marked as left out, in its place."""
    bare = bytearray(data)
    counts: Counter[bytes] = Counter()
    samples_per_chunk = 0
    boxes = _counted()
    for name, at, start, end in _boxes(data, 0, len(data)):
        next(boxes)
        if name == b"cmov":
            raise Broken("has a compressed index")
        if name not in _KEPT:
            bare[at + 4 : at + 8] = b"skip"
        elif name == b"trak":
            counts[name] += 1
        elif name == b"elst":  # FFmpeg believes its size
            counts[name] += max(_count(data, start + 4, end), (end - start - 8) // 12)
        elif name in _COUNTS:
            counts[name] += _count(data, start + _COUNTS[name], end)
        if name == b"stsd":
            _check_entry(data, start, end)
        if name == b"stsc":
            samples_per_chunk = max(samples_per_chunk, _largest(data, start, end))
        _check_counts(counts, samples_per_chunk)
    return bytes(bare)


def _check_counts(counts: Counter[bytes], samples_per_chunk: int) -> None:
    """Refuse what FFmpeg would index without end; it does so once for each edit."""
    if counts[b"trak"] > MAX_TRACKS:
        raise Broken(f"holds over {MAX_TRACKS} tracks")
    listed = counts[b"stsz"] + counts[b"stz2"] + counts[b"trun"]
    in_chunks = samples_per_chunk * (counts[b"stco"] + counts[b"co64"])
    if max(listed, in_chunks) * max(1, counts[b"elst"]) > MAX_SAMPLES:
        raise Broken("lists more pieces than ten minutes have")


def _check_entry(data: bytes, start: int, end: int) -> None:
    """Refuse a description that holds a table, or reaches beyond itself to one."""
    whole = _count(data, start + 4, end) == 1
    if not whole or _count(data, start + 8, end) > end - start - 8:
        raise Broken("is damaged: its format is not described once")
    if any(data.find(name, start, end) >= 0 for name in (*_KEPT, b"cmov")):
        raise Broken("is damaged: boxes where none belong")


def _count(data: bytes, at: int, end: int) -> int:
    if at + 4 > end:
        raise Broken("is damaged: a table ends early")
    return int.from_bytes(data[at : at + 4], "big")


def _largest(data: bytes, start: int, end: int) -> int:
    """Return the most samples that a chunk has. Source: ISO/IEC 14496-12, 8.7.4."""
    entries = _count(data, start + 4, end)
    table = data[start + 8 : min(end, start + 8 + entries * 12)]
    if entries > MAX_SAMPLES or len(table) < entries * 12:
        raise Broken("is damaged: a table ends early")
    return max((count for _, count, _ in struct.iter_unpack(">III", table)), default=0)


def _boxes(
    data: bytes, at: int, end: int, depth: int = 0
) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield (name, place, start, end of the content) of each box, outer ones first."""
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
        if stop < start or (stop > end and name in _KEPT - {b"mdat"}):
            raise Broken("is damaged: a box is larger than what holds it")
        yield name, at, start, min(stop, end)
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

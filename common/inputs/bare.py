"""
Image files reduced to the parts that draw the picture.

Pure. Text, profiles, thumbnails, further frames and whatever follows the end are left
out before a decoder sees the file: they can leak, inflate (zTXt, iCCP) or multiply
(EXIF entries that all point at the same bytes). Only EXIF is kept aside, unparsed.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"

MAX_PARTS = 65_536  #: chunks or segments; a 16 MB PNG of 8 KB chunks has 2,000
# Each scan of a progressive JPEG is a pass over the whole picture, for 30 bytes: a few
# kilobytes could keep a core busy for minutes. Encoders write about ten.
MAX_SCANS = 100

_PNG_PARTS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  #: by colour type
_WHOLE = ((0, 0, 1, 1),)  #: of a pass: first column and row, steps right and down
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)

_SOI, _EOI, _SOS, _APP0, _APP1, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xFE
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_EXIF = b"Exif\0\0"
# Within a scan, FF00 is a byte and FFD0…FFD7 are restarts.
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class Broken(ValueError):
    """The file is not whole, or not what it says; the text is for people."""


@dataclass(frozen=True)
class Bare:
    """A file with nothing but its picture."""

    data: bytes
    size: tuple[int, int]  #: width and height that it claims
    exif: bytes = b""  #: as found, for `orientation`


def bare_png(data: bytes) -> Bare:
    """
    Return the PNG of one picture, up to its end.

    Raises:
        Broken: also for an animation.
    """
    kept = [PNG]
    exif = b""
    for kind, chunk in _chunks(data):
        if kind == b"acTL":
            raise Broken("is animated")
        if kind == b"eXIf":
            exif = bytes(chunk[8:-4])
        if kind not in _PNG_PARTS:
            continue
        kept.append(bytes(chunk))
        if kind == b"IEND":
            return Bare(b"".join(kept), _png_header(kept[1][8:-4])[:2], exif)
    raise Broken("ends early")


def check_png_rows(data: bytes) -> None:
    """
    Check that a bare PNG has the data of all its rows.

    Pillow shows missing rows as black, without a word. Check the size first: this
    takes time in proportion to it, and next to no memory.

    Raises:
        Broken: rows are missing, or the data cannot be inflated.
    """
    inflate = zlib.decompressobj()
    missing = 0
    for kind, chunk in _chunks(data):
        if kind == b"IHDR":
            missing = _png_bytes(bytes(chunk[8:-4]))
        for start in range(8, len(chunk) - 4, 1 << 16) if kind == b"IDAT" else ():
            piece = bytes(chunk[start : min(start + (1 << 16), len(chunk) - 4)])
            while piece and missing >= 0:  # at 0 comes the checksum
                try:
                    missing -= len(inflate.decompress(piece, 1 << 20))
                except zlib.error:
                    raise Broken("is damaged") from None
                piece = inflate.unconsumed_tail
    if missing > 0:
        raise Broken("ends early: rows are missing")


def bare_jpeg(data: bytes) -> Bare:
    """
    Return the first picture of a JPEG file, which may hold others or a film.

    Raises:
        Broken: not whole, or with more scans than any picture needs.
    """
    kept = [JPEG]
    size = (0, 0)
    exif = b""
    scans = 0
    for kind, segment in _segments(data):
        if kind == _APP1 and bytes(segment[4:10]) == _EXIF and not exif:
            exif = bytes(segment[4:])
        if kind in _SOF:
            height, width = struct.unpack_from(">HH", segment, 5)
            size = (width, height)
        # Decoders read the colour space from JFIF's and Adobe's own segment.
        foreign = kind == _COM or (_APP0 < kind <= 0xEF and kind != _APP14)
        if not foreign:
            kept.append(bytes(segment))
        scans += kind == _SOS
        if scans > MAX_SCANS:
            raise Broken(f"has over {MAX_SCANS} scans")
    return Bare(b"".join(kept), size, exif)


def bare_webp(data: bytes) -> Bare:
    """
    Return the file as it is, with the size that its first chunk gives.

    libwebp reads no metadata, and Pillow hands it over unparsed.
    Source: RFC 9649, sections 2.5, 2.7 and 3.4.
    """
    head = data[12:30].ljust(18, b"\0")
    match head[:4]:
        case b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack("<HH", head[14:]))
        case b"VP8L":
            bits = int.from_bytes(head[9:13], "little")
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8X":
            width = 1 + int.from_bytes(head[12:15], "little")
            height = 1 + int.from_bytes(head[15:], "little")
        case _:
            raise Broken("is damaged")
    return Bare(data, (width, height))


def orientation(exif: bytes) -> int:
    """
    Return how the picture is stored: 1…8 as in EXIF, 1 when nothing says so.

    Only the first directory is looked through, for this one entry.
    Source: TIFF 6.0, section 2; tag 0x0112, SHORT.
    """
    tiff = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
            if (tag, kind) == (0x0112, 3):
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # it points beyond its end: damaged, and not worth a refusal
        pass
    return 1


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the chunks of a PNG with their frames: length, kind, body, checksum."""
    view = memoryview(data)
    start = len(PNG)
    for _ in range(MAX_PARTS):
        end = start + 12 + int.from_bytes(view[start : start + 4])
        if end > len(data):
            raise Broken("ends early")
        yield bytes(view[start + 4 : start + 8]), view[start:end]
        if end == len(data):
            return
        start = end
    raise Broken(f"has over {MAX_PARTS} parts")


def _png_header(header: bytes) -> tuple[int, int, int, int]:
    """Return width, height, bits of a pixel, and 1 for an interlaced picture."""
    if len(header) != 13:
        raise Broken("is damaged")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colour not in _PNG_CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise Broken("is damaged")
    return width, height, depth * _PNG_CHANNELS[colour], interlaced


def _png_bytes(header: bytes) -> int:
    """Return how many bytes a PNG's data inflates to: each row and its filter byte."""
    width, height, bits, interlaced = _png_header(header)
    total = 0
    for left, top, right, down in _ADAM7 if interlaced else _WHOLE:
        columns = -(-(width - left) // right)
        rows = -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _segments(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield a JPEG's segments up to its end, each scan together with its data."""
    view = memoryview(data)
    start = len(JPEG)
    for _ in range(MAX_PARTS):
        while data[start : start + 2] == b"\xff\xff":  # fill
            start += 1
        if start + 2 > len(data):
            raise Broken("ends early")
        kind = data[start + 1]
        if data[start] != 0xFF or kind == _SOI:
            raise Broken("is damaged")
        end = start + 2
        if kind != _EOI and kind not in _STANDALONE:
            end += int.from_bytes(view[end : end + 2])
        if kind == _SOS:
            scan_end = _SCAN_END.search(data, end)
            end = scan_end.start() if scan_end else len(data) + 1
        if end > len(data):
            raise Broken("ends early")
        yield kind, view[start:end]
        if kind == _EOI:
            return
        start = end
    raise Broken(f"has over {MAX_PARTS} parts")

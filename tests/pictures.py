"""PNG files made by hand, so that they can also lie."""

import random
import struct
import zlib


def chunk(kind, data):
    """Return a chunk of a PNG file."""
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def png(width=64, height=64, mode="rgb", extra=b"", noise=False, rows=None):
    """Return a PNG, flat or of noise; with fewer `rows` than it says, if asked."""
    bytes_per_row = width * (3 if mode == "rgb" else 1)
    color = 2 if mode == "rgb" else 0
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    packer = zlib.compressobj(0 if noise else 1)
    row = b"\0" + b"\x80" * bytes_per_row
    data = b"".join(
        packer.compress(b"\0" + random.randbytes(bytes_per_row) if noise else row)
        for _ in range(height if rows is None else rows)
    )
    body = chunk(b"IDAT", data + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + chunk(b"IEND", b"")

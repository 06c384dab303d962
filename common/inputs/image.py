"""
An image that someone sent, as one that is safe to hand on.

Pixels are all that goes through: whatever comes in is decoded under limits and written
anew, so that ComfyUI only ever sees bytes that we made.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import (
    FieldError,
    InvalidInput,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from common.inputs.bare import (
    JPEG,
    PNG,
    Broken,
    bare_jpeg,
    bare_png,
    bare_webp,
    check_png_rows,
    orientation,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 16 << 20
MIN_SIDE, MAX_SIDE, MAX_ASPECT = 16, 8192, 8
# What the decoders hold at once, measured with Pillow 13 at 4096×4096: 67 MB for PNG,
# 67 to 195 (progressive CMYK) for JPEG, 280 for WebP, whose decoder keeps two canvases.
# With these limits no input takes over 256 MB.
MAX_PIXELS = {"PNG": 16_800_000, "JPEG": 16_800_000, "WEBP": 12_600_000}

_STRIP = {"PNG": bare_png, "JPEG": bare_jpeg, "WEBP": bare_webp}

_KINDS = "a PNG, JPEG or WebP image"
_HINT = f"send {_KINDS}, {MIN_SIDE} to {MAX_SIDE} pixels a side"


@dataclass(frozen=True)
class Picture:
    """An RGB image, upright, without metadata."""

    data: bytes  #: PNG, written by us
    width: int
    height: int


def decode(data: bytes, *, field: str = "image") -> Picture:
    """
    Check an image and write it anew. It takes up to a second: call it in a thread.

    EXIF's orientation is applied. Transparency is laid over black, which is what
    ComfyUI shows for the transparent parts of nearly all files; the colours hidden
    beneath stay hidden. 16-bit grey keeps its upper 8 bits. Colour profiles are left
    out, as ComfyUI does. What follows the picture's end is ignored.

    Raises:
        UnsupportedMediaType: of another kind, whatever its name or claimed type.
        PayloadTooLarge: over `MAX_BYTES`.
        InvalidInput: broken, animated, or of a size that no model takes.
    """
    if len(data) > MAX_BYTES:
        problem = FieldError(field, f"is over {MAX_BYTES >> 20} MiB", _HINT)
        raise PayloadTooLarge(f"{field}: {problem.message}", errors=[problem])
    kind = _kind(data)
    if kind is None:
        problem = FieldError(field, f"is not {_KINDS}", _HINT)
        raise UnsupportedMediaType(f"{field}: {problem.message}", errors=[problem])
    try:
        return _rewrite(data, kind)
    except Broken as broken:
        raise InvalidInput.of(field, str(broken), _HINT) from None
    except Exception:  # noqa: BLE001 hostile bytes make Pillow raise about anything
        raise InvalidInput.of(field, "cannot be decoded", _HINT) from None


def _kind(data: bytes) -> str | None:
    """Tell the format by its first bytes."""
    if data.startswith(PNG):
        return "PNG"
    if data.startswith(JPEG + b"\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def _check_size(width: int, height: int, kind: str) -> None:
    most = MAX_PIXELS[kind]
    short, long = sorted((width, height))
    if short < MIN_SIDE or long > MAX_SIDE or width * height > most:
        raise Broken(
            f"is {width}×{height} pixels; {MIN_SIDE} to {MAX_SIDE} a side and"
            f" {most / 1e6:g} million in all are taken"
        )
    if long > MAX_ASPECT * short:
        raise Broken(f"is {width}×{height} pixels, longer than {MAX_ASPECT}:1")


def _rewrite(data: bytes, kind: str) -> Picture:
    bare = _STRIP[kind](data)
    _check_size(*bare.size, kind)
    if kind == "PNG":
        check_png_rows(bare.data)
    # Each step gives up the pixels of the one before; two at a time are the peak.
    pixels, exif = _open(bare.data, bare.size, kind)
    pixels = _over_black(pixels)
    pixels = _upright(pixels, orientation(bare.exif or exif))
    pixels.info.clear()
    file = io.BytesIO()
    # Level 1 writes a 1280×704 frame in half the time of 6, and 1 % larger.
    pixels.save(file, "PNG", compress_level=1)
    return Picture(file.getvalue(), *pixels.size)


def _open(data: bytes, size: tuple[int, int], kind: str) -> tuple[Image, bytes]:
    """Return the pixels as RGB or RGBA, and EXIF where Pillow has to find it."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=[kind]) as opened:
        if opened.size != size:
            raise Broken("is damaged: it has two sizes")
        if getattr(opened, "n_frames", 1) != 1:
            raise Broken("is animated")
        exif = opened.info.get("exif", b"")
        if opened.mode == "I;16":  # Pillow's own conversion clips at 255
            grey = Image.frombytes("L", opened.size, opened.tobytes()[1::2])
            return grey.convert("RGB"), exif
        mode = "RGBA" if opened.has_transparency_data else "RGB"
        return opened.convert(mode), exif


def _over_black(pixels: Image) -> Image:
    from PIL import Image

    if pixels.mode == "RGB":
        return pixels
    flat = Image.new("RGB", pixels.size)
    flat.paste(pixels.convert("RGB"), mask=pixels.getchannel("A"))
    return flat


def _upright(pixels: Image, stored: int) -> Image:
    from PIL.Image import Transpose

    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(stored)
    return pixels if turn is None else pixels.transpose(turn)

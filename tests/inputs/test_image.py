import io
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from common.errors import InvalidInput, PayloadTooLarge, UnsupportedMediaType
from common.inputs.bare import orientation
from common.inputs.image import decode

CANARY = b"canary-8f3a"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def chunk(kind, body):
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png(width=64, height=64, *, depth=8, colour=2, interlaced=0, rows=None, extra=b""):
    """A PNG by hand, of as many mid-grey rows as we like."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = b"\0" + b"\x80" * (-(-width * bits // 8))
    data = zlib.compress(row * (height if rows is None else rows))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def quarters(mode="RGB", size=(64, 32)):
    """Red, green, blue, white: an image that shows how it was turned."""
    image = Image.new("RGB", size, WHITE)
    width, height = size[0] // 2, size[1] // 2
    image.paste(RED, (0, 0, width, height))
    image.paste(GREEN, (width, 0, 2 * width, height))
    image.paste(BLUE, (0, height, width, 2 * height))
    return image.convert(mode)


def save(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(stored):
    tags = Image.Exif()
    tags[0x0112] = stored
    tags[0x010E] = CANARY.decode()
    return tags


def opened(picture):
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    assert image.format == "PNG"
    assert image.mode == "RGB"
    assert image.size == (picture.width, picture.height)
    return image


def corners(image):
    """What lies in the four quarters, as the nearest of the colours."""
    width, height = image.size
    places = [(x, y) for y in (1, 3) for x in (1, 3)]
    seen = [image.getpixel((x * width // 4, y * height // 4)) for x, y in places]
    return [tuple(round(channel / 255) * 255 for channel in pixel) for pixel in seen]


GOOD = {
    "png": save(quarters(), "PNG"),
    "png palette": save(quarters("P"), "PNG"),
    "png 1 bit": save(Image.new("1", (64, 64), 1), "PNG"),
    "png grey": save(quarters("L"), "PNG"),
    "png grey and alpha": save(quarters("LA"), "PNG"),
    "png rgba": save(quarters("RGBA"), "PNG"),
    "png grey 16": png(depth=16, colour=0),
    "png rgb 16": png(depth=16, colour=2),
    "png rgba 16": png(depth=16, colour=6),
    "png smallest": png(16, 16),
    "png longest": png(8192, 1024),
    "png largest": png(4096, 4096, colour=0),
    "png tail": png() + b"<?php tail ?>",
    "jpeg": save(quarters(), "JPEG"),
    "jpeg progressive": save(quarters(), "JPEG", progressive=True),
    "jpeg grey": save(quarters("L"), "JPEG"),
    "jpeg cmyk": save(quarters("CMYK"), "JPEG"),
    "jpeg restarts": save(quarters(), "JPEG", restart_marker_blocks=1),
    "jpeg tail": save(quarters(), "JPEG") + b"<?php tail ?>",
    "jpeg several": save(quarters(), "MPO", save_all=True, append_images=[quarters()]),
    "webp": save(quarters(), "WEBP"),
    "webp lossless": save(quarters(), "WEBP", lossless=True),
    "webp rgba": save(quarters("RGBA"), "WEBP"),
}  # fmt: skip


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_images_are_written_anew(data):
    """Each kind and mode of image becomes an RGB PNG of the same size."""
    picture = decode(data)

    with Image.open(io.BytesIO(data)) as original:
        assert (picture.width, picture.height) == original.size
    image = opened(picture)
    assert image.info == {}
    assert b"php" not in picture.data


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200 << 20))),
        chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(100 << 20))),
        chunk(b"tEXt", b"k\0text")[:-1] + b"!",
        chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    ],
    ids=["text bomb", "profile bomb", "damaged text", "damaged EXIF"],
)
def test_metadata_is_not_even_read(extra):
    """What a PNG carries beside its picture is left out before it is decoded."""
    assert opened(decode(png(extra=extra))).getpixel((5, 5)) == (128, 128, 128)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_colours_stay(kind):
    """What is red stays red, at its place."""
    picture = decode(save(quarters(), kind))

    assert corners(opened(picture)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA"])
def test_modes_become_rgb(mode):
    """Printing colours, palettes and opaque alpha show the same picture."""
    kind = "JPEG" if mode == "CMYK" else "PNG"

    assert corners(opened(decode(save(quarters(mode), kind)))) == [
        RED,
        GREEN,
        BLUE,
        WHITE,
    ]


@pytest.mark.parametrize("stored", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_orientation_is_applied(kind, stored):
    """A photo that was taken upright is upright, whichever way it was stored."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = quarters()
    if stored in undo:
        image = image.transpose(undo[stored])

    picture = decode(save(image, kind, exif=exif(stored)))

    assert (picture.width, picture.height) == (64, 32)
    assert corners(opened(picture)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    "image",
    [
        Image.merge("RGBA", [*quarters().split(), Image.new("L", (64, 32), 0)]),
        Image.new("LA", (64, 32), (255, 0)),
    ],
    ids=["rgba", "grey"],
)
def test_transparent_is_black(image):
    """What is transparent becomes black; the colours beneath do not come to light."""
    assert set(opened(decode(save(image, "PNG"))).get_flattened_data()) == {(0, 0, 0)}


def test_half_transparent_is_half_black():
    """Transparency is blended, also where a palette or one colour carries it."""
    half = Image.new("RGBA", (64, 64), (200, 100, 50, 128))
    keyed = save(Image.new("RGB", (64, 64), RED), "PNG", transparency=RED)
    palette = save(Image.new("P", (64, 64), 3), "PNG", transparency=3)

    assert opened(decode(save(half, "PNG"))).getpixel((5, 5)) == (100, 50, 25)
    assert opened(decode(keyed)).getpixel((5, 5)) == (0, 0, 0)
    assert opened(decode(palette)).getpixel((5, 5)) == (0, 0, 0)


def test_16_bit_grey_keeps_its_shades():
    """A 16-bit grey is scaled to 8 bits, not clipped at 255."""
    image = Image.new("I;16", (64, 64), 0x8040)

    assert opened(decode(save(image, "PNG"))).getpixel((5, 5)) == (0x80, 0x80, 0x80)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_metadata_stays_behind(kind):
    """Text, EXIF, XMP and profiles of the file that came in are not in ours."""
    options = {"exif": exif(1), "icc_profile": ICC, "xmp": b"<x>" + CANARY + b"</x>"}
    if kind == "PNG":
        options["pnginfo"] = text = PngInfo()
        text.add_text("prompt", CANARY.decode())
        text.add_itxt("workflow", CANARY.decode(), zip=True)
    data = save(quarters(), kind, **options)
    assert CANARY in data

    picture = decode(data)

    assert CANARY not in picture.data
    kinds = [picture.data[at + 4 : at + 8] for at in starts(picture.data)]
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


def starts(data):
    at = 8
    while at < len(data):
        yield at
        at += 12 + int.from_bytes(data[at : at + 4])


def many_scans():
    data = save(quarters(), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * 100 + data[-2:]


def flipped(data, kind, offset):
    at = data.index(kind) + offset
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def frames(kind):
    more = [quarters().rotate(n) for n in (90, 180)]
    return save(quarters(), kind, save_all=True, append_images=more)


STORED = save(quarters(), "PNG", compress_level=0)
PNG, JPG, WEBP = GOOD["png"], GOOD["jpeg"], GOOD["webp"]
BROKEN = {
    "png signature": PNG[:8],
    "png header": PNG[:33],
    "png cut in data": PNG[:-20],
    "png without end": PNG[:-12],
    "png cut in end": PNG[:-1],
    "png half the rows": png(rows=32),
    "png half, interlaced": png(rows=32, interlaced=1),
    "png no rows": png(rows=0),
    "png no data": PNG[:33] + chunk(b"IEND", b""),
    "png flipped bit": png().replace(b"IDAT", b"IDAT", 1)[:50] + b"~" + png()[51:],
    "png flipped palette": flipped(GOOD["png palette"], b"PLTE", 5),
    "png flipped pixel": flipped(STORED, b"IDAT", 99),
    "png data not deflated": PNG[:33] + chunk(b"IDAT", b"x" * 99) + chunk(b"IEND", b""),
    "png colour type": png()[:25] + b"\x05" + png()[26:],
    "png short header": PNG[:8] + chunk(b"IHDR", b"") + chunk(b"IEND", b""),
    "png no header": PNG[:8] + chunk(b"IEND", b""),
    "png length lies": PNG[:33] + b"\xff\xff\xff\xffIDAT" + bytes(99),
    "png endless parts": PNG[:33] + chunk(b"teXt", b"") * 70_000 + PNG[33:],
    "png animated": frames("PNG"),
    "png 0×0": png(0, 0),
    "png 2**31": png()[:16] + b"\x7f\xff\xff\xff" * 2 + png()[24:],
    "png too small": png(15, 64),
    "png too long": png(8193, 2000),
    "png too large": png(4200, 4200, colour=0),
    "png bomb": png(9000, 9000, colour=0, rows=1),
    "png narrow": png(16, 129),
    "jpeg start": JPG[:2] + b"\xff",
    "jpeg header": JPG[:20],
    "jpeg cut": JPG[: len(JPG) // 2],
    "jpeg without end": JPG[:-2],
    "jpeg no picture": JPG[:2] + b"\xff\xd9",
    "jpeg junk between": JPG[:2] + b"\xff\xfe\0\4xx" + b"junk" + JPG[2:],
    "jpeg length lies": JPG[:2] + b"\xff\xe0\xff\xff" + JPG[2:],
    "jpeg short size": JPG[:2] + b"\xff\xc0\0\2\xff\xd9",
    "jpeg fill only": JPG[:2] + b"\xff" * 100_000,
    "jpeg many scans": many_scans(),
    "jpeg too large": JPG.replace(struct.pack(">HH", 32, 64), b"\xff\xff\xff\xff"),
    "webp cut": WEBP[:-10],
    "webp header": WEBP[:12],
    "webp half a header": WEBP[:22],
    "webp length lies": b"RIFF\xff\xff\xff\xffWEBPVP8 \0\0\0\x80" + bytes(16),
    "webp other part": b"RIFF\xff\xff\xff\xffWEBPJUNK" + bytes(99),
    "webp animated": frames("WEBP"),
    "webp canvas": b"RIFF\x16\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + b"\xff" * 6 + bytes(8),
    "webp too large": save(Image.new("L", (3600, 3600)), "WEBP", method=0),
}  # fmt: skip


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_images_are_refused(data):
    """A file that is not whole, or too much, is refused by field, in our own words."""
    with pytest.raises(InvalidInput) as refusal:
        decode(data, field="first_frame")

    (error,) = refusal.value.errors
    assert error.field == "first_frame"
    assert error.message.split()[0] in ("is", "ends", "has", "cannot")
    assert "PNG, JPEG or WebP" in error.hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        save(quarters(), "GIF"),
        save(quarters(), "BMP"),
        save(quarters(), "TIFF"),
        b"%PDF-1.4\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\0\x1cftypavif",
        b"\0\0\0\x18ftypisom",
        b"SIMPLE  =                    T",
        b"PK\x03\x04",
        b"\x7fELF",
        b"RIFF\0\0\0\0WAVE",
        b"\x89PNG",
        b"\xff\xd8",
    ],
)
def test_other_kinds_are_unsupported(data):
    """Only PNG, JPEG and WebP reach a decoder."""
    with pytest.raises(UnsupportedMediaType) as refusal:
        decode(data)

    assert refusal.value.errors[0].field == "image"


def test_too_many_bytes():
    """A file over the limit is refused unread."""
    with pytest.raises(PayloadTooLarge) as refusal:
        decode(PNG + bytes(16 << 20))

    assert refusal.value.errors[0].field == "image"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([PNG, JPG, WEBP, GOOD["png palette"]]), st.randoms())
def test_any_damage_is_a_refusal_or_a_picture(data, chance):
    """Whatever bytes change, we answer with a picture or a refusal of our own."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 5)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)

    try:
        picture = decode(bytes(damaged))
    except (InvalidInput, UnsupportedMediaType) as refusal:
        text = str(refusal)
    else:
        text = ""
        opened(picture)
    assert not any(word in text for word in ("PIL", "Errno", "object", "<", "buffer"))


@settings(deadline=None)
@given(st.sampled_from([PNG, JPG, WEBP]), st.floats(0, 0.999))
def test_no_cut_file_is_taken(data, part):
    """A file cut anywhere is refused; nobody gets a video from half a picture."""
    with pytest.raises((InvalidInput, UnsupportedMediaType)):
        decode(data[: int(len(data) * part)])


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        (exif(6).tobytes(), 6),
        (b"Exif\0\0" + exif(8).tobytes().removeprefix(b"Exif\0\0"), 8),
        (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x05\0\0", 5),
        (exif(9).tobytes(), 1),
        (b"", 1),
        (b"junk", 1),
        (b"II*\0\xff\xff\xff\xff", 1),
        (b"II*\0\x08\0\0\0\xff\xff" + bytes(30), 1),
    ],
)
def test_orientation_of_any_exif(data, stored):
    """Orientation is found in either byte order, and 1 where EXIF is damaged."""
    assert orientation(data) == stored


@given(st.binary(max_size=60))
def test_orientation_never_fails(data):
    """No EXIF makes us stumble."""
    assert orientation(b"II*\0" + data) in range(1, 9)


HOSTILE = """
    import io, random, resource, struct, sys, zlib
    from PIL import Image, WebPImagePlugin
    from common.errors import ServiceError
    from common.inputs.image import decode

    def save(image, kind, **options):
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    def chunk(kind, body):
        return (struct.pack(">I", len(body)) + kind + body
                + struct.pack(">I", zlib.crc32(kind + body)))

    def peak():
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most >> 20 if sys.platform == "darwin" else most >> 10

    def inflating(kind):
        body = b"k\\0\\0" + zlib.compress(bytes(300 << 20), 1)
        plain = save(Image.new("L", (64, 64)), "PNG")
        return plain[:33] + chunk(kind, body) + plain[33:]

    def pointing():  # EXIF of 15 MB whose 60,000 entries all hold the same 10 MB
        entries = b"".join(
            struct.pack("<HHII", n, 7, 10 << 20, 4 << 20) for n in range(1, 60001))
        tiff = b"II*\\0\\x08\\0\\0\\0" + struct.pack("<H", 60000) + entries + b"\\0" * 4
        tiff = tiff.ljust(14 << 20, b"x")
        plain = save(Image.new("L", (64, 64)), "JPEG")
        parts = [tiff[at:at + 65000] for at in range(0, len(tiff), 65000)]
        segments = [
            b"\\xff\\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\\0\\0" + part
            for part in parts]
        return plain[:2] + b"".join(segments) + plain[20:]

    def bombs():
        exif = Image.Exif()
        exif[0x0112] = 6
        side, wide = (4096, 4096), (4096, 3072)
        yield save(Image.new("CMYK", side), "JPEG", progressive=True, exif=exif)
        yield save(Image.new("RGBA", side), "PNG", exif=exif)
        yield save(Image.new("RGBA", wide), "WEBP", lossless=True, method=0, exif=exif)
        yield save(Image.new("L", (9000, 9000)), "PNG")
        yield inflating(b"zTXt")
        yield inflating(b"iCCP")
        yield inflating(b"IDAT")
        yield pointing()

    if sys.argv[1] == "make":
        for number, data in enumerate(bombs()):
            open(f"{sys.argv[2]}/{number}", "wb").write(data)
    else:
        Image.init()
        data = open(sys.argv[2], "rb").read()
        before = peak()
        try:
            decode(data)
        except ServiceError:
            pass
        print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_memory_stays_bounded(tmp_path):
    """No picture, metadata or compressed chunk makes us take over 256 MB."""
    script = tmp_path / "hostile.py"
    script.write_text(textwrap.dedent(HOSTILE))
    files = tmp_path / "files"
    files.mkdir()
    # On Linux a process starts with the peak of the one it was forked from, so a
    # small one starts it.
    small = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"

    def run(*arguments):
        command = [sys.executable, "-c", small, sys.executable, str(script), *arguments]
        root = str(Path(__file__).parents[2])
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, env={"PYTHONPATH": root}
        ).stdout

    run("make", str(files))
    growth = {path.name: int(run("decode", str(path))) for path in files.iterdir()}

    assert len(growth) == 8
    assert max(growth.values()) <= 256, growth
    assert max(growth.values()) > 100, "the measure measures nothing"

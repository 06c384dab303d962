import contextlib
import io
import struct
import wave

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InvalidInput, PayloadTooLarge, UnsupportedMediaType
from common.inputs import audio, media
from common.inputs import sound as sound_
from common.inputs.audio import decode
from tests.pictures import png
from tests.sounds import FORMS, film, sound

CANARY = "canary-8f3a"


def box(name, body):
    return struct.pack(">I4s", 8 + len(body), name) + body


FTYP = box(b"ftyp", b"M4A \0\0\0\0")


def fragment(run):
    return box(b"moof", box(b"traf", box(b"trun", run)))


def swollen(table, at, count):
    """A recording one of whose tables says that it is longer than it is."""
    sent = bytearray(sound("m4a"))
    start = sent.index(table) + 4 + at
    sent[start : start + 4] = struct.pack(">I", count)
    return bytes(sent)


def looped(times):
    """A recording that is edited to be heard again and again."""
    sent = bytearray(sound("m4a"))
    for name in (b"moov", b"trak", b"edts", b"elst"):
        at = sent.index(name) - 4
        size = int.from_bytes(sent[at : at + 4], "big") + 12 * (times - 1)
        sent[at : at + 4] = struct.pack(">I", size)
    start = sent.index(b"elst") + 8
    sent[start : start + 4] = struct.pack(">I", times)
    sent[start + 4 : start + 4] = sent[start + 4 : start + 16] * (times - 1)
    return bytes(sent)


def id3(size):
    """A tag that says it is this long."""
    head = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + head


def many_ogg_streams():
    page = b"OggS\0\2" + bytes(8) + b"%b" + bytes(8) + b"\1\0"
    return b"".join(page % struct.pack("<I", n) for n in range(99))


def opened(speech):
    with wave.open(io.BytesIO(speech.data)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert file.getframerate() == 16_000
        assert file.getnframes() == round(speech.duration_s * 16_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_form_becomes_the_encoders_own(form, channels):
    """WAV, 16 kHz, one channel, as long and as loud as it was."""
    speech = decode(sound(form, 1.5, channels=channels))

    heard = opened(speech)
    assert speech.duration_s == pytest.approx(1.5, abs=0.05)
    assert 0.6 < np.abs(heard).max() <= 1


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_every_usual_rate_is_taken(rate):
    """Telephones, CDs and studios."""
    assert decode(sound("wav", 1, rate=rate)).duration_s == pytest.approx(1, abs=0.01)


def test_tags_stay_behind():
    """Whatever a file says of itself is not handed on."""
    sent = sound("mp3", 1, tags={"title": CANARY, "comment": CANARY * 99})

    assert CANARY.encode() in sent
    assert CANARY.encode() not in decode(sent).data


def test_an_index_holds_what_samples_need():
    """FFmpeg would read a table that hides in any other box."""
    hidden = box(b"udta", box(b"stsc", struct.pack(">4I", 0, 1, 1, 0x7FFFFF00)))
    sent = sound("m4a", 1, tags={"title": CANARY}) + box(b"moof", hidden)

    _, kept = sound_.bare(sent)

    assert b"udta" in sent
    assert not [name for name in (b"udta", b"free") if name in kept]
    assert len(kept) == len(sent)
    assert decode(sent) == decode(sound("m4a", 1))


def test_pictures_are_not_decoded(monkeypatch):
    """FFmpeg would, to know their format; a small one may be of any size."""
    asked = []
    opens = av.open
    monkeypatch.setattr(av, "open", lambda *a, **b: asked.append(b) or opens(*a, **b))

    with pytest.raises(UnsupportedMediaType, match="is a video"):
        decode(film())

    known = asked[-1]["options"]["codec_whitelist"].split(",")
    assert {"aac", "mp3", "opus", "pcm_s16le"} <= set(known)
    assert not {"png", "mjpeg", "h264"} & set(known)


def test_a_fragmented_recording_of_a_browser_is_taken():
    """Safari's recorder writes such files."""
    sent = sound("m4a", 1, movflags="frag_keyframe+empty_moov")

    assert decode(sent).duration_s == pytest.approx(1, abs=0.1)


def test_a_wav_from_a_pipe_has_no_size():
    """Its header was written before its length was known."""
    sent = sound("wav", 1)
    at = sent.index(b"data") + 4
    piped = sent[:at] + b"\xff\xff\xff\xff" + sent[at + 4 :]

    assert decode(piped).duration_s == 1


@pytest.mark.parametrize(
    ("sent", "error", "message"),
    [
        (lambda: b"", UnsupportedMediaType, "is not a WAV"),
        (lambda: png(), UnsupportedMediaType, "is not a WAV"),
        (lambda: b"#EXTM3U\nhttp://127.0.0.1/", UnsupportedMediaType, "is not"),
        (lambda: film(), UnsupportedMediaType, "is a video"),
        (lambda: sound("wav")[:-5000], InvalidInput, "ends early"),
        (lambda: sound("wav")[:30], InvalidInput, "has no samples"),
        (lambda: sound("m4a")[:-500], InvalidInput, "damaged"),
        (lambda: sound("ogg")[:-99], InvalidInput, "ends early"),
        (lambda: sound("mp3")[:300], InvalidInput, "decoded|under"),
        (lambda: sound("wav", 0.05), InvalidInput, "has under 0.2 seconds"),
        (lambda: sound("wav", 1, rate=4000), InvalidInput, "4000 samples a second"),
        (lambda: FTYP + box(b"moov", b""), InvalidInput, "decoded|recordings"),
        (lambda: id3(2**28 - 1), InvalidInput, "ends early"),
        (
            lambda: FTYP + box(b"moov", box(b"cmov", b"x")),
            InvalidInput,
            "compressed index",
        ),
        (
            lambda: FTYP + fragment(b"\0" * 4 + b"\xff" * 4),
            InvalidInput,
            "more pieces",
        ),
        (lambda: swollen(b"stsc", 12, 0x7FFFFF00), InvalidInput, "more pieces"),
        (lambda: swollen(b"stco", 4, 1 << 20), InvalidInput, "more pieces"),
        (lambda: swollen(b"stsc", 4, 1 << 17), InvalidInput, "ends early"),
        (lambda: swollen(b"elst", 4, 1 << 20), InvalidInput, "more pieces"),
        (
            lambda: FTYP + box(b"moov", box(b"trak", b"") * 9),
            InvalidInput,
            "over 8 tracks",
        ),
        (
            lambda: sound("m4a").replace(b"esds", b"stsz"),
            InvalidInput,
            "where none belong",
        ),
        (
            lambda: sound("m4a").replace(b"esds", b"cmov"),
            InvalidInput,
            "where none belong",
        ),
        (lambda: swollen(b"stsd", 4, 2), InvalidInput, "not described once"),
        (lambda: swollen(b"stsd", 8, 9999), InvalidInput, "not described once"),
        (lambda: looped(3), InvalidInput, "more than once"),
        (
            lambda: FTYP + box(b"moov", box(b"stsz", bytes(8))) + b"\xff" * 4,
            InvalidInput,
            "table ends early",
        ),
        (many_ogg_streams, InvalidInput, "streams"),
    ],
    ids=[
        "empty", "image", "playlist", "video", "cut wav", "head of a wav", "cut m4a",
        "cut ogg", "cut mp3", "too short", "odd rate", "empty index",
        "only a tag", "compressed index", "bomb of samples", "bomb of chunks",
        "many chunks", "cut chunks", "many edits", "many tracks", "hidden table",
        "hidden index", "two formats", "format beyond itself", "loop",
        "cut table", "many streams",
    ],
)  # fmt: skip
def test_what_is_no_recording_is_refused(sent, error, message):
    """By its content, with the field's name and what to send instead."""
    with pytest.raises(error, match=message) as refused:
        decode(sent(), field="audio_2")

    assert refused.value.errors[0].field == "audio_2"
    assert refused.value.errors[0].hint


@pytest.mark.parametrize(
    "sent",
    [
        b"RIFF\0\0\0\0WAVE" + b"fmt \0\0\0\0" * 200_000,
        FTYP + box(b"free", b"") * 200_000,
        (b"OggS" + bytes(10) + b"1234" + bytes(9)) * 200_000,
        (b"ID3" + bytes(7)) * 200_000,
        FTYP + b"".join(struct.pack(">I4s", 8 * n, b"moov") for n in range(999, 0, -1)),
    ],
    ids=["chunks", "boxes", "pages", "tags", "nested boxes"],
)
def test_a_file_of_nothing_but_structure_is_put_down(sent):
    """Its pieces are counted, so that it holds no thread; pictures may go there too."""
    with pytest.raises(InvalidInput, match=r"over 100,000 pieces|deep"):
        media.decode(sent, "file", {"image", "audio"})


def test_a_file_over_the_limit_is_not_looked_at(monkeypatch):
    """It is told by its length alone."""
    monkeypatch.setattr(audio, "MAX_BYTES", 1 << 20)

    with pytest.raises(PayloadTooLarge, match="over 1 MiB"):
        decode(bytes((1 << 20) + 1))


def test_a_bomb_is_put_down_where_the_limit_is_passed():
    """Eleven minutes of silence in a small file are not decoded to their end."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 48000), np.int16), "s16", "mono"
        )
        frame.sample_rate = 48000
        for _ in range(660):
            frame.pts = None
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    assert len(file.getvalue()) < 2 << 20
    with pytest.raises(InvalidInput, match="over 600 seconds"):
        decode(file.getvalue())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_no_damage_escapes(form, data):
    """Bytes that were changed anywhere give a recording, or a refusal of ours."""
    sent = bytearray(sound(form, 0.5))
    for _ in range(data.draw(st.integers(1, 6))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(InvalidInput, UnsupportedMediaType):
        opened(decode(bytes(sent)))

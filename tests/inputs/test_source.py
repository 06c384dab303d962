import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidInput
from common.inputs.source import Inline, UploadId, Url, parse

ID = "0b7c3f0e-5b0a-4a63-9a2f-5d1c2e3f4a5b"


@pytest.mark.parametrize(
    ("value", "source"),
    [
        (ID, UploadId(ID)),
        ("http://example.com/x.png", Url("http://example.com/x.png")),
        ("HTTPS://example.com/x.png?a=b", Url("HTTPS://example.com/x.png?a=b")),
        ("http:127.0.0.1/x.png", Url("http:127.0.0.1/x.png")),
        ("http://", Url("http://")),
        ("/9j/4AAQSkZJRg==", Inline(b"\xff\xd8\xff\xe0\x00\x10JFIF")),
        ("iVBORw0KGgo=", Inline(b"\x89PNG\r\n\x1a\n")),
        ("data:image/png;base64,aGVsbG8=", Inline(b"hello")),
        ("DATA:image/JPEG;BASE64,aGVsbG8=", Inline(b"hello")),
        ("data:image/webp;base64,aGVsbG8=", Inline(b"hello")),
        ("http", Inline(base64.b64decode("http"))),
    ],
)
def test_a_string_is_what_its_scheme_says(value, source):
    """An upload id, a URL or bytes, told apart by scheme; slashes mean nothing."""
    assert parse(value) == source


@pytest.mark.parametrize(
    "value",
    [
        "",
        "!!!not base64!!!",
        "A",
        "-_-_-_-_",
        "АААА",
        "====",
        "aGVsbG8",
        "aGVs bG8=",
        "aGVs\nbG8=",
        "aGVsbG8=\n",
        " aGVsbG8=",
        "aGVsbG8=aGVsbG8=",
        "\ud800AAA",
        ID[:-1],
        f" {ID}",
        f"{{{ID}}}",
        uuid.UUID(ID).urn,
        "file:///etc/passwd",
        "file:/etc/passwd",
        "/etc/passwd",
        "~/.ssh/id_rsa",
        "../../etc/passwd",
        "C:\\Windows\\win.ini",
        "\\\\server\\share\\x.png",
        "ftp://127.0.0.1/x.png",
        "gopher://127.0.0.1:6379/_INFO",
        "javascript:alert(1)",
        "s3://bucket/key.png",
        "hf://org/repo/x.png",
        "//127.0.0.1/x.png",
        " http://127.0.0.1/x.png",
        "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64,PGI+",
        "data:image/png,%89PNG",
        "data:image/png;base64,",
        "data:image/png;charset=x;base64,AAAA",
        "data:image/png;base64,data:image/png;base64,AAAA",
        "data:;base64,AAAA",
        "data:image/png",
    ],
)
def test_all_else_is_refused(value):
    """What is none of these is refused with the field's name and without the value."""
    with pytest.raises(InvalidInput) as refusal:
        parse(value, field="start_image")

    (error,) = refusal.value.errors
    assert error.field == "start_image"
    assert len(refusal.value.detail) < 150
    assert not value or value not in refusal.value.detail


@given(st.binary(min_size=1))
def test_bytes_come_back(data):
    """Base64 of any bytes, plain or as a data URI, gives those bytes."""
    text = base64.b64encode(data).decode()

    assert parse(text) == Inline(data)
    assert parse(f"data:image/png;base64,{text}") == Inline(data)


@given(st.text())
def test_any_text_is_judged(text):
    """Any text is a source or a refusal, never another error."""
    try:
        source = parse(text)
    except InvalidInput:
        return
    assert isinstance(source, UploadId | Url | Inline)


def test_other_media_bring_their_types():
    """A field for audio says which data URIs it takes."""
    parse("data:audio/wav;base64,AAAA", field="audio", types={"audio/wav"})
    with pytest.raises(InvalidInput, match="audio: "):
        parse("data:image/png;base64,AAAA", field="audio", types={"audio/wav"})

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, TypeAdapter

from common.text import clean_text


@pytest.mark.parametrize(
    "text",
    [
        "a cat 🐱 in 東京",
        "قطة تمشي",
        "c" + "\u0301" * 50,
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "{{7*7}} ${7*7} #{7*7} <%= 7*7 %> %(a)s {0.__class__}",
        "%s%s%n%x",
        "cat\n2026-01-01 INFO admin logged in",
        "../../../../etc/passwd",
        "a \\ \" ' / \\u0000 b",
        "a" * 2000,
        "\ttabs\tand\nlines",
        "((((((cat:1e9))))))",
        "word embedding explained",
        "\u2800",
    ],
)
def test_text_is_kept_as_it_is(text):
    """Any script, emoji, markup, template or path is plain text and stays as it is."""
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "blank"),
        ("\n\n\t", "blank"),
        ("\u2003\u3000\u00a0", "blank"),
        ("\u200b\u2060\ufeff", "blank"),
        ("a\x1b[2Jb", "U+001B at position 1"),
        ("a\x07", "U+0007"),
        ("a\0", "U+0000"),
        ("a\rb", "U+000D"),
        ("a\x7f", "U+007F"),
        ("a\x85b", "U+0085"),
        ("a\u2028b", "U+2028"),
        ("a\u2029b", "U+2029"),
        ("a\ufffe", "U+FFFE"),
        ("a\ufdd0", "U+FDD0"),
        ("a\U0010ffff", "U+10FFFF"),
        ("\udc00 cat", "U+DC00 at position 0"),
        ("embedding:../../../etc/passwd cat", "embedding:"),
        ("a cat (embedding:x:1.2)", "embedding:"),
        ("embedding:", "embedding:"),
    ],
)
def test_what_is_not_text_is_refused(text, says):
    """Controls, noncharacters, blanks and file syntax are refused by name."""
    with pytest.raises(ValueError, match=says.replace("+", r"\+")):
        clean_text(text)


def test_lines_of_windows_are_lines():
    """CRLF, which HTML forms send, becomes a newline."""
    assert clean_text("a\r\nb\r\n") == "a\nb\n"


@given(st.text())
def test_what_passes_can_be_stored(text):
    """Whatever passes is UTF-8 and stays on its line in a log that escapes newlines."""
    try:
        clean = clean_text(text)
    except ValueError:
        return

    clean.encode("utf-8")
    assert clean.strip()
    assert clean.replace("\n", " ").splitlines() == [clean.replace("\n", " ")]
    assert clean_text(clean) == clean


def test_works_as_a_validator():
    """Pydantic reports the refusal as a value error of the field."""
    prompt = TypeAdapter(Annotated[str, AfterValidator(clean_text)])

    assert prompt.validate_python("cat") == "cat"
    with pytest.raises(ValueError, match="is blank"):
        prompt.validate_python(" ")

"""What callers must not see is taken out; what they need stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.comfy.scrub import MAX_CHARS, scrub


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, 3/4 of [1, 48]/2", "plain words, 3/4 of [1, 48]/2"),
        ("cannot open /srv/comfyui/models/x.safetensors", "cannot open x.safetensors"),
        ("'/srv/my canary/x y.safetensors' absent", "'x y.safetensors' absent"),
        ("in C:\\Users\\me\\x.gguf: bad", "in x.gguf: bad"),
        ('"C:/Users/me and you/x.gguf"', '"x.gguf"'),
        ("\\\\server\\share\\x.gguf", "x.gguf"),
        ("see ~/.cache/hub/x", "see x"),
        ("get https://user:pw@host/a/b failed", "get <url> failed"),
        ("two\nlines\tand \x1b[31mred", "two lines and [31mred"),
        ("bad\nTraceback (most recent call last):\n  File …", "bad"),
        ('bad\n  File "/srv/a.py", line 3, in f\n    secret()', "bad"),
        ("path=/a/b/c.py,/d/e/f.py", "path=c.py,f.py"),
        ("", ""),
    ],
)
def test_scrub(text, shown):
    """Folders, URLs, tracebacks and control characters go; file names stay."""
    assert scrub(text) == shown


def test_hide():
    """A text of the request is not quoted back, wherever it stands."""
    assert scrub("bad token in 'a red fox'", hide=["a red fox", ""]) == (
        "bad token in '…'"
    )


def test_short():
    """The result has a limit."""
    assert len(scrub("word " * 1000)) == MAX_CHARS


part = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=3, max_size=8)


@given(st.lists(part, min_size=2, max_size=6), st.sampled_from(["{}", "'{}'", "x: {}"]))
def test_no_folder_survives(parts, frame):
    """Of an absolute path only the last name is left."""
    said = scrub(frame.format("/" + "/".join(parts)))

    assert said == frame.format(parts[-1])

"""
Takes what callers must not see out of the engine's own words.

Tracebacks, folders, URLs and control characters go; file names stay, because
"wan2.2_vae.safetensors" is what a reader needs and "/srv/models/vae" is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_CHARS = 300

_TRACEBACK = re.compile(
    r'Traceback \(most recent call last\)|^\s*File ".*?", line \d', re.M
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.I)
# In quotes a path may hold spaces, so it ends at the quote.
_QUOTED = re.compile(
    r"""(['"])(?:~|/|[A-Za-z]:[\\/]|\\\\)[^'"\n]*[\\/]([^'"\\/\n]*)\1"""
)
# Not after a letter, digit or bracket: 3/4, [1, 48]/2 and and/or are no paths.
_POSIX = re.compile(r"""(?<![\w.)\]/])~?/(?:[^\s'"/:;,()]+/)*([^\s'"/:;,()]*)""")
_WINDOWS = re.compile(
    r"""(?<!\w)(?:[A-Za-z]:[\\/]|\\\\)(?:[^\s'"\\/:;,()]+[\\/])*([^\s'"\\/:;,()]*)"""
)
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")


def scrub(text: str, *, hide: Iterable[str] = (), max_chars: int = MAX_CHARS) -> str:
    """
    Return one short line without tracebacks, folders and URLs.

    Args:
        hide: strings that must not appear either, such as the prompt's text.

    >>> scrub("Could not open '/srv/my models/x.safetensors': no such file")
    "Could not open 'x.safetensors': no such file"
    """
    for secret in hide:
        if len(secret.strip()) > 2:
            text = text.replace(secret, "…")
    # Whole input first, then cut: a cut inside a path would hide that it is one.
    text = _TRACEBACK.split(text[:20_000], maxsplit=1)[0]
    text = _URL.sub("<url>", text)
    text = _QUOTED.sub(r"\1\2\1", text)
    text = _WINDOWS.sub(r"\1", text)
    text = _POSIX.sub(r"\1", text)
    text = _SPACE.sub(" ", text).strip()
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"

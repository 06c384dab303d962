"""
What a prompt may be: plain text that any log, page or tokenizer can hold.

Pure. Every script, emoji, markup and template is fine, because nothing reads it as
anything but text; what is refused is what acts on a terminal, a log or ComfyUI.
"""

from __future__ import annotations

import re
import unicodedata

from common.request import Refused

# C0 and C1 controls but tab and newline; line and paragraph separator; surrogates;
# the 66 noncharacters: FDD0-FDEF and the last two of each of the 17 planes.
_REFUSED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef"
    + "".join(rf"\U{plane:04x}fffe\U{plane:04x}ffff" for plane in range(17))
    + "]"
)
# ComfyUI's tokenizers look up the word after it as a file of the embeddings folder.
# Source: `embedding_identifier` of SDTokenizer in comfy/sd1_clip.py.
_EMBEDDING = "embedding:"


def clean_text(value: str) -> str:
    r"""
    Return the text with CRLF as LF, or refuse it.

    Windows and HTML forms end lines with CRLF, which is no reason to refuse a prompt.

    Raises:
        ValueError: a control character, a lone surrogate, a noncharacter, nothing
            visible, or ComfyUI's `embedding:NAME`. The texts name no more than the
            character and its place.

    >>> clean_text("a cat\r\nin snow")
    'a cat\nin snow'
    """
    value = value.replace("\r\n", "\n")
    if found := _REFUSED.search(value):
        raise Refused(
            f"has the character U+{ord(found[0]):04X} at position {found.start()},"
            " which is not text",
            hint="remove it; tabs and newlines are fine",
        )
    if not any(map(_visible, value)):
        raise Refused("is blank", hint="write what to show")
    if _EMBEDDING in value:
        raise Refused(
            f'has "{_EMBEDDING}", which ComfyUI would read as a file to load',
            hint='write "embedding :" if you mean the word',
        )
    return value


def _visible(character: str) -> bool:
    """Tell whether a character shows: zero-width and formatting ones do not."""
    return not character.isspace() and unicodedata.category(character) != "Cf"

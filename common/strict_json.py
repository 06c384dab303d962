"""
JSON bytes to a value, without what stock parsers let through.

Pure. The standard parser takes NaN, the last of two equal keys, lone surrogates and
any depth; each of them means one thing to a check and another to what comes after it.
Time and memory grow with the length of the input and nothing else.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import NoReturn

from common.errors import MalformedRequest

MAX_VALUES = 10_000  #: of items and members; a large ComfyUI workflow has about 3,000
MAX_NAME_CHARS = 256  #: of a member's name
MAX_INT_DIGITS = 20  #: 2**64 has 20
MAX_FLOAT_CHARS = 64  #: the longest text a double needs has 24

# Strings as a whole, or what gives structure. Possessive, and the closing quote may be
# missing: an unclosed string is read to the end once, not once from each of its quotes.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


def loads(data: bytes, *, max_depth: int = 16, max_values: int = MAX_VALUES) -> object:
    """
    Parse one JSON document.

    Raises:
        MalformedRequest: saying what is wrong and where, without repeating the input.
    """
    if data.startswith(codecs.BOM_UTF8):
        _refuse("starts with a byte order mark")
    _check_shape(data, max_depth, max_values)
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError:
        _refuse("is not UTF-8")
    except json.JSONDecodeError as error:
        what = error.msg.rstrip(": ")
        _refuse(f"is not JSON: {what} (line {error.lineno}, column {error.colno})")
    _check_text(value)
    return value


def _check_shape(data: bytes, max_depth: int, max_values: int) -> None:
    """
    Bound depth and number of values before anything is built.

    What is not JSON is judged up to its first error, where the parser stops too.
    """
    depth = values = strings = 0
    for token in _TOKEN.finditer(data):
        match data[token.start()]:
            case 0x22:  # "
                strings += 1
            case 0x5B | 0x7B:  # [ {
                depth += 1
                values += 1
            case 0x2C:  # ,
                values += 1
            case _:
                depth -= 1
        if depth > max_depth:
            _refuse(f"is nested over {max_depth} deep")
        # A member has two strings at most; a closing bracket too many ends JSON.
        if values > max_values or strings > 2 * max_values or depth < 0:
            _refuse(f"has over {max_values} values" if depth >= 0 else "is not JSON")


def _check_text(value: object) -> None:
    r"""Refuse lone surrogates, which `\ud800` can smuggle past UTF-8."""
    open_values = [value]
    while open_values:
        match open_values.pop():
            case str(text) if not text.isascii() and _SURROGATE.search(text):
                _refuse("has half of a surrogate pair in a string")
            case dict(members):
                open_values += [*members, *members.values()]
            case list(items):
                open_values += items


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse("has a name twice in one object")
    if any(len(name) > MAX_NAME_CHARS for name in members):
        _refuse(f"has a name of over {MAX_NAME_CHARS} characters")
    return members


def _int(text: str) -> int:
    if len(text.lstrip("-")) > MAX_INT_DIGITS:
        _refuse(f"has a number of over {MAX_INT_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    if len(text) > MAX_FLOAT_CHARS:
        _refuse(f"has a number of over {MAX_FLOAT_CHARS} characters")
    number = float(text)
    if not math.isfinite(number):
        _refuse("has a number that is out of range")
    return number


def _constant(text: str) -> NoReturn:
    _refuse(f"has {text}, which is not JSON")


def _refuse(what: str) -> NoReturn:
    raise MalformedRequest(f"The body {what}")

"""
Which line of a TOML text a finding is about.

Pure. `tomllib` says the line of a syntax error only; what a schema finds is named by
its place, such as ("file", 3, "sha256"), and looked up here.
"""

from __future__ import annotations

import re
import tomllib

Place = tuple[str | int, ...]

_KEY = re.compile(r"""\s*([\w-]+|"[^"]*"|'[^']*')\s*=""")


def line_of(text: str, place: Place, value: object = None) -> int:
    """
    Return the line of a place, counted from 1, or of the table that it is missing in.

    `value` finds an item of an array that is written over several lines.
    """
    best, depth = 1, 0
    for number, at in _places(text):
        if place[: len(at)] == at and len(at) > depth:
            best, depth = number, len(at)
    if isinstance(value, str) and depth < len(place):
        for number, line in enumerate(text.splitlines()[best - 1 :], best):
            if f'"{value}"' in line or f"'{value}'" in line:
                return number
    return best


def _places(text: str) -> list[tuple[int, Place]]:
    """Return (line, place) for each header and each key of the text."""
    found: list[tuple[int, Place]] = []
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            header = _header(line)
            if header is None:
                continue
            table = header
            if line.lstrip().startswith("[["):
                counts[header] = counts.get(header, -1) + 1
                table = (*header, counts[header])
            found.append((number, table))
        elif key := _KEY.match(line):
            found.append((number, (*table, key[1].strip("\"'"))))
    return found


def _header(line: str) -> Place | None:
    """Return the keys of `[a."b".c]` or `[[a]]`; None for a line within an array."""
    try:
        level = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    keys = []
    while isinstance(level, dict) and level:
        key, level = next(iter(level.items()))
        keys.append(key)
    return tuple(keys)

"""Bytes as people write and read them. Pure."""

from __future__ import annotations

import re

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)


def human(nbytes: float) -> str:
    """
    Return a number of bytes for people, in powers of 1000 as the makers of disks do.

    >>> human(999), human(17_805_840_571), human(1_000)
    ('999 bytes', '17.81 GB', '1.0 kB')
    """
    power = 0
    while nbytes >= 1000 and power < len(_UNITS) - 1:
        nbytes /= 1000
        power += 1
    digits = 0 if nbytes >= 1000 else (0, 1, 1, 2, 2)[power]
    return f"{nbytes:.{digits}f} {_UNITS[power]}"


def parsed(text: str) -> int:
    """
    Return the bytes of "200GB", "1.5 TiB" or "123".

    >>> parsed("200GB"), parsed("1KiB"), parsed("7")
    (200000000000, 1024, 7)

    Raises:
        ValueError: it is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size")
    number, letter, binary = found.groups()
    power = 0 if letter is None else "kmgt".index(letter.lower()) + 1
    return int(float(number) * (1024 if binary else 1000) ** power)

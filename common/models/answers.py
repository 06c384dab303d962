"""What a server's answer to a ranged GET means. Pure."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Ranged:
    """The bytes that were asked for follow; the whole file has `total`."""

    total: int
    mark: str = ""  #: ETag or date: of another file it is another


@dataclass(frozen=True)
class Whole:
    """The Range was not heard: the whole file follows, from its first byte."""

    total: int | None
    mark: str = ""


@dataclass(frozen=True)
class Moved:
    """Look there."""

    location: str


@dataclass(frozen=True)
class Refused:
    """This address is not, or no longer, for us: 401, 403, 410."""

    status: int


@dataclass(frozen=True)
class Absent:
    """There is no such file: 404."""


@dataclass(frozen=True)
class Busy:
    """Ask again after `seconds`; None = it does not say when."""

    status: int
    seconds: float | None


@dataclass(frozen=True)
class Odd:
    """Something else; `final` = asking again would give the same."""

    why: str
    final: bool = False


Answer = Ranged | Whole | Moved | Refused | Absent | Busy | Odd

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_RESET = re.compile(r"\bt=(\d+)")


def judge(
    status: int, headers: Mapping[str, str], start: int, stop: int, now: datetime
) -> Answer:
    """
    Return what an answer to `Range: bytes=start-(stop - 1)` means.

    The names of the headers are in lower case.
    """
    if headers.get("content-encoding", "identity") != "identity":
        return Odd("it packs the bytes although asked not to", final=True)
    # Nodes of one farm may call the same bytes W/"x" and "x".
    etag = headers.get("etag", "").removeprefix("W/")
    mark = etag or headers.get("last-modified", "")
    match status:
        case 206:
            found = _RANGE.fullmatch(headers.get("content-range", ""))
            if found is None or int(found[1]) != start or int(found[2]) >= stop:
                return Odd("it sent another range than asked for", final=True)
            return Ranged(int(found[3]), mark)
        case 200:
            length = headers.get("content-length", "")
            return Whole(int(length) if length.isdecimal() else None, mark)
        case 301 | 302 | 303 | 307 | 308 if "location" in headers:
            return Moved(headers["location"])
        case 401 | 403 | 410:
            return Refused(status)
        case 404:
            return Absent()
        case 416:
            return Odd("its file is shorter", final=True)
        case 429 | 503:
            return Busy(status, retry_after(headers, now))
        case _:
            return Odd(f"it answered {status}", final=400 <= status < 500)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """
    Return the seconds that a server asks us to wait; None = it does not say.

    `Retry-After` in seconds or as a date, or the `t` of a `RateLimit` header.
    """
    said = headers.get("retry-after", "").strip()
    if said.isdecimal():
        return float(said)
    with contextlib.suppress(ValueError):
        at = parsedate_to_datetime(said)
        # A date with "-0000" has no zone by RFC 5322, and HTTP means UTC.
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
    found = _RESET.search(headers.get("ratelimit", ""))
    return float(found[1]) if found else None

"""What every source is reduced to: a file on this machine, or ranges of a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from common.models.answers import retry_after
from common.models.errors import ModelsError


@dataclass(frozen=True)
class Address:
    """
    Where the bytes of one file can be read, for a while.

    `url` may be signed: it goes into no log, no error and no receipt; `host` does.
    `headers` are for the URL's own host only and are dropped at a redirect to another.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    size: int | None = None  #: bytes, as the source states it
    sha256: str | None = None  #: lower-case hex, as the source states it
    expires_at: float | None = None  #: seconds since 1970; None = does not expire


class Source(Protocol):
    """One place that may have a file. Making one asks nobody anything."""

    @property
    def label(self) -> str:
        """What the manifest calls it; holds no secret."""

    def resolve(self) -> Address | Path:
        """
        Return where the bytes are now; a path is a whole file on this machine.

        May ask the network, and may be called again when an address has expired.

        Raises:
            NotThere: this source does not have the file.
            AuthNeeded: it has, but not for us.
            SourceBusy: it says when to ask again.
            SourceTrouble: it cannot say now.
        """


class NotThere(ModelsError):
    """This source does not have the file."""

    code = "not_there"
    exit_code = 6


class SourceTrouble(ModelsError):
    """This source cannot say now: a time-out, a 5xx, no network."""

    code = "source_trouble"
    exit_code = 6


class SourceBusy(SourceTrouble):
    """A 429 or a 503: this source is to be left alone for a while."""

    def __init__(self, message: str, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        lower = {name.lower(): value for name, value in headers.items()}
        self.seconds = retry_after(lower, datetime.now(UTC))  #: None = it does not say

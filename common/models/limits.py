"""How a file is moved: sizes, counts and how long to wait."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.models.lock import SEGMENT_BYTES
from common.models.staging import BLOCK


@dataclass(frozen=True)
class Patience:
    """How much a source may go wrong before the next one is asked."""

    strikes: int = 3  #: failures in a row, none of them with a block between
    backoff_s: float = 0.5  #: after the first strike; doubles
    busy_s: float = 120.0  #: the longest Retry-After that is waited for
    busy: int = 8  #: answers of 429 or 503 in a row
    #: Bytes a second, of all connections together. A source below is put off while
    #: another was never tried: at 64 kB/s one GB takes four hours, so trying costs
    #: little, and a link that is slow itself is asked on after one round of them all.
    least_rate: float = 64e3
    better: float = 4.0  #: times its rate, one that was put off is asked again
    slow_s: float = 20.0  #: over which a rate is measured


@dataclass(frozen=True)
class FetchLimits:
    """How a file is moved. The defaults are for files of gigabytes."""

    connections: int = 16
    block: int = BLOCK  #: bytes; a kill loses at most one for each connection
    #: Bytes, a multiple of `block`: what is fetched again when it is wrong.
    segment: int = SEGMENT_BYTES
    ask_least: int = 4 << 20  #: bytes of the smallest range asked for
    ask_most: int = 64 << 20  #: and of the largest
    connect_s: float = 10.0
    stall_s: float = 20.0  #: a connection without a byte for so long is dropped
    tail_s: float = 2.0  #: a range slower than this is shared out when nothing is left
    patience: Patience = field(default_factory=Patience)
    #: Bytes per second of a connection that nobody slows down: more would not help.
    uncapped: float = 300e6
    write_out: int = 1 << 30  #: bytes after which the disk is asked to begin with them

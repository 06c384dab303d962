"""
What of a damaged file is still good goes into the staging of its repair.

With the hash of each segment in models.lock, a flipped byte costs 64 MiB of download,
not 14 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.models.lock import SEGMENT_BYTES
from common.models.segments import block_hashes, segment_hash
from common.models.staging import Identity, Staging

LABEL = "what was there before"


def salvage(
    damaged: Path,
    folder: Path,
    identity: Identity,
    segments: Sequence[str],
    segment: int = SEGMENT_BYTES,
) -> int:
    """
    Copy the good segments of a file into a staging folder, and return their bytes.

    Args:
        damaged: the file; is only read.
        folder: the staging folder; `fetch` goes on there.
        identity: of the right file.
        segments: `segment_hash` of each of its segments.
        segment: bytes of one.

    Raises:
        NoSpace: the volume cannot hold both.
    """
    saved = 0
    with damaged.open("rb") as file, Staging(folder, identity) as staging:
        for number, wanted in enumerate(segments):
            file.seek(number * segment)
            try:
                data = file.read(min(segment, identity.size - number * segment))
            except OSError:  # a bad sector costs its segment
                continue
            if segment_hash(block_hashes(memoryview(data), staging.block)) != wanted:
                continue
            first = number * segment // staging.block
            for block, at in enumerate(range(0, len(data), staging.block), first):
                staging.write(block, memoryview(data)[at : at + staging.block], LABEL)
            saved += len(data)
    return saved

"""
The hash of a segment is over the hashes of its blocks, which the journal has anyway.

It says where a file is damaged, not what the file is; so it resists no attacker, and
costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import xxhash


def segment_hash(blocks: Iterable[str]) -> str:
    """Return the xxh3_128 of the xxh3_64 (hex) of a segment's blocks, as hex."""
    return xxhash.xxh3_128_hexdigest(b"".join(map(bytes.fromhex, blocks)))


def segment_hashes(blocks: Sequence[str], each: int) -> tuple[str, ...]:
    """Return the hash of each segment of `each` blocks; the last may be shorter."""
    starts = range(0, len(blocks), each)
    return tuple(segment_hash(blocks[start : start + each]) for start in starts)


def block_hashes(data: memoryview, block: int) -> list[str]:
    """Return the xxh3_64 (hex) of each `block` bytes; the last may be shorter."""
    starts = range(0, len(data), block)
    return [xxhash.xxh3_64_hexdigest(data[at : at + block]) for at in starts]

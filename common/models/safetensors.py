"""
A safetensors file, looked at in about a millisecond: does its header fit its bytes?

The file is 8 bytes (the header's length, little endian), the header (JSON: of each
tensor the dtype, shape and byte range) and the tensors without a gap. So a file that
was cut, grown or overwritten at its head is seen without reading the tensors. A wrong
byte inside a tensor is not: that takes the file's sha256.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from common.models.errors import Corrupt

SUFFIX = ".safetensors"
#: bytes. Source: MAX_HEADER_SIZE in safetensors' tensor.rs, the reference
MAX_HEADER = 100_000_000

# Bits of one element. Source: `Dtype::bitsize` of the reference implementation. A dtype
# that is not here is newer than this list: its range is checked, its size is not.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32,
    "U64": 64, "I64": 64, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a sound header says."""

    sha256: str  #: of the header's bytes, without the 8 of its length
    tensors: int  #: how many
    metadata: dict[str, str]


def fingerprint(path: Path) -> str:
    """
    Return the sha256 of a file's header without looking into it (0.1 ms).

    Raises:
        Corrupt: there is no whole header.
    """
    with path.open("rb") as file:
        return hashlib.sha256(_header_bytes(file, path.stat().st_size)).hexdigest()


def check(path: Path) -> Header:
    """
    Return what the header says, when it fits the file.

    Raises:
        Corrupt: it does not; the message says where.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = _header_bytes(file, size)
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"its safetensors header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise Corrupt("its safetensors header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise Corrupt("its __metadata__ is not text")
    ranges = sorted(_range(name, tensor) for name, tensor in header.items())
    end = 0
    for start, stop, name in ranges:
        if start != end:
            raise Corrupt(f"tensor {name!r} starts at byte {start}, not {end}")
        end = stop
    there = size - 8 - len(raw)
    if there != end:
        raise Corrupt(f"its tensors are {there} bytes, its header says {end}")
    return Header(hashlib.sha256(raw).hexdigest(), len(ranges), metadata)


def _header_bytes(file: BinaryIO, size: int) -> bytes:
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length > MAX_HEADER or length > size - 8:
        raise Corrupt(f"no safetensors header fits its {size} bytes")
    raw = file.read(length)
    if len(raw) != length or not raw.startswith(b"{"):
        raise Corrupt("it does not begin with a safetensors header")
    return raw


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Two readers may take different ones of two equal keys.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _range(name: str, tensor: object) -> tuple[int, int, str]:
    """Return the byte range of one tensor, which must hold its shape."""
    match tensor:
        case {
            "dtype": str(dtype),
            "shape": list(shape),
            "data_offsets": [int(start), int(stop)],
        } if start <= stop and all(map(_is_count, (start, stop, *shape))):
            bits = _BITS.get(dtype)
            if bits is not None and math.prod(shape) * bits != (stop - start) * 8:
                raise Corrupt(
                    f"tensor {name!r} has {stop - start} bytes, not its shape's"
                )
            return start, stop, name
    raise Corrupt(f"its header says no sound dtype, shape and bytes of {name!r}")


def _is_count(number: object) -> bool:
    return type(number) is int and number >= 0  # true is an int, but no count

"""What a container is given: memory, cards, volumes, as the kernel and NVIDIA say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Card:
    """One GPU."""

    name: str
    vram_bytes: int
    capability: tuple[int, int]  #: NVIDIA's compute capability


@dataclass(frozen=True)
class Machine:
    """What was found."""

    memory_bytes: int  #: the container's limit, or the machine's where it has none
    cards: tuple[Card, ...] = ()
    cuda: tuple[int, int] | None = None  #: the newest that the driver runs
    volumes: tuple[Path, ...] = ()  #: ours to write, of those asked for; best first
    sealed: tuple[Path, ...] = ()  #: mounted, and not ours to write


def look(volumes: Sequence[Path]) -> Machine:
    """Look at the machine; takes some milliseconds."""
    cards, cuda = _cards()
    cards = used(cards, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return Machine(memory_limit(), cards, cuda, usable(volumes), sealed(volumes))


def used(cards: tuple[Card, ...], visible: str | None) -> tuple[Card, ...]:
    """
    Return the cards that programs will see.

    Args:
        visible: of CUDA_VISIBLE_DEVICES; CUDA stops at the first that is not there.
    """
    try:
        numbers = [int(one) for one in (visible or "").split(",") if one.strip()]
    except ValueError:
        return cards  # by UUID
    if not numbers:
        return cards
    there = takewhile(lambda number: 0 <= number < len(cards), numbers)
    return tuple(cards[number] for number in there)


def memory_limit(root: Path = Path("/")) -> int:
    """
    Return the bytes of memory that the container may use.

    Args:
        root: of the file system, for tests.
    """
    total = psutil.virtual_memory().total
    for path in (
        root / "sys/fs/cgroup/memory.max",  # version 2: "max" where there is none
        root / "sys/fs/cgroup/memory/memory.limit_in_bytes",  # 1: some huge number
    ):
        with suppress(OSError, ValueError):
            return min(total, int(path.read_text()))
    return total


def usable(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders that we may write to, volumes before the container's own."""
    ours = [path for path in paths if path.is_dir() and os.access(path, os.W_OK)]
    return tuple(sorted(ours, key=lambda path: not path.is_mount()))


def sealed(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the volumes that are mounted, and that we may only read."""
    found = [path for path in paths if path.is_mount()]
    return tuple(path for path in found if not os.access(path, os.W_OK))


def _cards() -> tuple[tuple[Card, ...], tuple[int, int] | None]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return (), None
    try:
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        count = pynvml.nvmlDeviceGetCount()
        cards = tuple(_card(index) for index in range(count))
        return cards, (version // 1000, version % 1000 // 10)
    except pynvml.NVMLError:
        return (), None
    finally:
        pynvml.nvmlShutdown()


def _card(index: int) -> Card:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Card(str(pynvml.nvmlDeviceGetName(handle)), memory.total, (major, minor))

"""What a container is given: memory, cards, volumes, as the kernel and NVIDIA say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
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


def look(volumes: Sequence[Path]) -> Machine:
    """Look at the machine; takes some milliseconds."""
    cards, cuda = _cards()
    return Machine(memory_limit(), cards, cuda, usable(volumes))


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

"""
Tells whether the kernel's out-of-memory killer struck.

A process it kills only shows SIGKILL, as any `kill -9`; the counters tell them apart.
"""

from __future__ import annotations

from pathlib import Path

SIGKILLED = (-9, 137)  #: by signal, and as a shell or a container reports it


def oom_kills(root: Path = Path("/")) -> int:
    """
    Return how many processes the kernel has killed for memory, where we may see it.

    Our control group's counter (v2, then v1), else the machine's; 0 off Linux. Only
    the difference of two calls means anything.

    Args:
        root: of the file system, for tests.
    """
    for group in _groups(root):
        for path in (
            root / "sys/fs/cgroup" / group / "memory.events",
            root / "sys/fs/cgroup/memory" / group / "memory.oom_control",
        ):
            count = _count(path)
            if count is not None:
                return count
    return _count(root / "proc/vmstat") or 0


def _groups(root: Path) -> list[str]:
    """Return our groups, and "" for a container that sees its own as the root."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return [""]
    fields = [line.split(":", 2) for line in lines]
    mine = [f[2].lstrip("/") for f in fields if len(f) == 3 and f[1] in ("", "memory")]
    return [*mine, ""]


def _count(path: Path) -> int | None:
    """Read the line `oom_kill N`."""
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None

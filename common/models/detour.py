"""
By way of a disk of this machine: for volumes that take bytes in any order badly.

Some network volumes are slow at, or lose, files that many threads write into. So the
file comes to a disk of ours first, and is then copied from its beginning to its end,
and hashed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from common.models.fetch import Fetched, Goal
from common.models.sources.address import Source

Run = Callable[[Goal, list[Source], Path], Fetched]


@dataclass(frozen=True)
class Here:
    """What came to this machine, as a source."""

    label: str
    path: Path

    def resolve(self) -> Path:
        """Return the file."""
        return self.path


def by_way_of(
    disk: Path, run: Run, copy: Run, goal: Goal, sources: list[Source], staging: Path
) -> Fetched:
    """
    Fetch a file to `disk`, copy it to `staging`, and say who gave it.

    Args:
        disk: a folder of this file's own; gone at the end, kept when it is cut.
        run: fetches.
        copy: fetches as well, and says that it copies.
        goal: the file.
        sources: whom to ask.
        staging: where the file is to be.

    Raises:
        ModelsError: as `fetch`.
    """
    first = run(goal, sources, disk)
    whole = replace(goal, size=first.size, sha256=first.sha256, segments=first.segments)
    there = copy(whole, [Here(f"by way of {disk}", first.path)], staging)
    shutil.rmtree(disk, ignore_errors=True)
    return replace(there, sources=first.sources, kept=first.kept)

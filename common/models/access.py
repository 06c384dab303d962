"""Why a root takes no writes, in words that say who has to do what."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

#: What we write to below a root; a shared volume may have these from another user.
_OURS = ("", "models", "blobs/sha256", "receipts", "refs", ".staging", ".locks")

HINT = "name a folder that we may write to by WAN_MODELS or --root, or give us this one"


def refusal(root: Path) -> str | None:
    """Return why we may not write below a root that is there; None = we may."""
    for name in _OURS:
        path = root / name
        if not os.path.lexists(path):
            continue
        if not path.is_dir():
            return f"{path} is not a folder"
        if not may(path, os.W_OK | os.X_OK):
            return whose(path)
    return None


def may(path: Path, how: int) -> bool:
    """Whether we may do something with a file; `how` as `os.access` has it."""
    # Opening a file asks for the effective user, and so do we where that is possible.
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def whose(path: Path) -> str:
    """Return to whom a file or a folder belongs, and who we are."""
    if sys.platform == "win32":
        return f"we may not write to {path}"
    found = path.stat()
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"the volume of {path} is mounted read-only"
    return (
        f"{path} belongs to user {found.st_uid} and group {found.st_gid}"
        f" ({stat.filemode(found.st_mode)}), and we are user {os.geteuid()}"
    )

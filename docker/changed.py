"""
Which images a change touches, as a line for a workflow: `images=["wan-…", …]`.

    python docker/changed.py BASE     what differs between a commit and HEAD
    python docker/changed.py --all    every image
    …                        --packed also those with weights in them

An image is named after its service's folder; `wan-cpu` runs any of them on the embedded
engine. Standard library alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU = "wan-cpu"

# What every image is built from, beside its service's own folder.
SHARED = re.compile(
    r"common/|docker-bake\.hcl$|docker/versions\.env$|docker/.*\.lock$|\.dockerignore$"
    r"|requirements\.lock$|models\.(?:toml|lock)$|[^/]*\.sh$"
)
# One service's folder is read by another's wrapper.
READS = {"fastwan2.2-5b-packed": "fastwan2.2-5b-network-storage"}
NOT_BUILT = re.compile(r".*\.md$")


def services() -> list[str]:
    """Return the folders that hold a service."""
    return sorted(path.parent.name for path in ROOT.glob("*/api_wrapper.py"))


def images(paths: Iterable[str] | None) -> list[str]:
    """Return the images that changed files go into; None = all of them."""
    known = services()
    if paths is None:
        return [CPU, *(f"wan-{name}" for name in known)]
    built = [path for path in paths if not NOT_BUILT.fullmatch(path)]
    if any(SHARED.match(path) for path in built):
        return images(None)
    folders = {path.split("/")[0] for path in built}
    found = [f"wan-{name}" for name in known if {name, READS.get(name, name)} & folders]
    return [CPU, *found] if found else []


def changed(base: str) -> list[str] | None:
    """Return the files that differ; None = no telling, as after a forced push."""
    command = ["git", "diff", "--name-only", f"{base}...HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else None


if __name__ == "__main__":
    given = sys.argv[1]
    found = images(None if given == "--all" else changed(given))
    if "--packed" not in sys.argv:
        found = [image for image in found if not image.endswith("-packed")]
    sys.stdout.write(f"images={json.dumps(found)}\n")

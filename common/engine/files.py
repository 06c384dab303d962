"""Files of the engine: which name a prefix becomes, and nothing outside its folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from common.engine.settings import EngineSettings

KINDS = ("input", "output", "temp")


class Outside(Exception):
    """A name leads out of the folder it belongs to."""


def inside(folder: Path, *parts: str) -> Path:
    """
    Return a path in a folder.

    Raises:
        Outside: it leads out of the folder.
    """
    try:
        path = folder.joinpath(*parts).resolve()
    except (ValueError, OSError) as error:  # a NUL, or a name that is too long
        raise Outside(f"{'/'.join(parts)!r} is no name") from error
    if not path.is_relative_to(folder):
        raise Outside(f"{'/'.join(parts)} is outside {folder}")
    return path


def named_file(settings: EngineSettings, name: str) -> Path:
    """
    Return the file a loader's input means: "x.png", "jobs/1/x.png", "x.png [output]".

    Raises:
        Outside: it leads out of its folder.
    """
    kind = "input"
    if marked := re.fullmatch(r"(.*) \[(input|output|temp)\]", name):
        name, kind = marked.groups()
    return inside(settings.folder(kind), name)


@dataclass(frozen=True)
class Target:
    """Where the next file of a prefix goes."""

    folder: Path
    subfolder: str
    stem: str
    suffix: str
    counter: int

    def name(self, counter: int) -> str:
        """Return the file name with this number, as in film_00001_.mp4."""
        return f"{self.stem}_{counter:05}_{self.suffix}"


def next_file(settings: EngineSettings, kind: str, prefix: str, suffix: str) -> Target:
    """
    Return the next free name of a prefix such as "video/film".

    The counter is one more than the largest there is, whatever the suffix, so a name is
    used again when the last file was deleted.

    Raises:
        Outside: the prefix leads out of the folder.
    """
    root = settings.folder(kind)
    try:
        whole = inside(root, prefix)
    except Outside as error:
        raise Outside(
            "**** ERROR: Saving image outside the output folder is not allowed.\n"
            f" full_output_folder: {(root / prefix).resolve().parent}\n"
            f"         output_dir: {root}"
        ) from error
    folder, stem = whole.parent, whole.name
    folder.mkdir(parents=True, exist_ok=True)
    number = re.compile(re.escape(stem) + r"_(\d+)_?\.\w+", re.IGNORECASE)
    used = [int(m[1]) for p in folder.iterdir() if (m := number.fullmatch(p.name))]
    subfolder = "" if folder == root else folder.relative_to(root).as_posix()
    return Target(folder, subfolder, stem, suffix, max(used, default=0) + 1)

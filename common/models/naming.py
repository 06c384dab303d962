"""
A name for bytes that are there: never over a name that is taken.

Hard links refuse by themselves. Where a volume has none, a symbolic link does, and a
rename is looked before: there two who do it at once write the same bytes.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from common.disk import flush, partial


def link(held: Path, path: Path) -> None:
    """
    Give `held` a second name, by the first of: hard link, relative symlink, copy.

    Raises:
        FileExistsError: the name is taken.
    """
    for make in (os.link, _point):
        try:
            make(held, path)
        except FileExistsError:
            raise
        except OSError:
            continue
        return
    with partial(path) as part:
        shutil.copyfile(held, part)
        flush(part)  # before it is read-only, as what it is copied from
        shutil.copystat(held, part)
        move(part, path)


def move(data: Path, path: Path) -> None:
    """
    Give a file another name on its volume, and take away the one it had.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        os.link(data, path)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        try:
            data.rename(path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with partial(path) as part:
                shutil.copyfile(data, part)
                flush(part)
                shutil.copystat(data, part)
                part.rename(path)
            data.unlink()
    else:
        data.unlink()


def _point(held: Path, path: Path) -> None:
    # `models`, or a folder in it, may itself be a link to elsewhere.
    path.symlink_to(os.path.relpath(held.resolve(), path.parent.resolve()))

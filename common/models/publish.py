"""
Give hashed bytes their name: absent or whole, whoever else is writing, whenever we die.

The receipt is written first: it says nothing of a name that is not there yet, and when
the name appears it is verified at once. Then the bytes get their name in `blobs/`, by a
hard link, which never goes over what another process published; then ComfyUI's name.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Protocol

from common.disk import flush, fsync_folder, partial
from common.manifest_schema import BESIDE
from common.models import receipts, safetensors
from common.models.digest import Progress, digest
from common.models.errors import Corrupt, Missing, ModelsError
from common.models.layer import Layer, Weights
from common.models.naming import link, move
from common.models.quarantine import quarantine


class Fetched(Protocol):
    """What was fetched: a file in staging, whole, and hashed on its way."""

    @property
    def path(self) -> Path:
        """Where it is; gone when it is published."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def sha256(self) -> str:
        """Of all of them, lower-case hex."""

    @property
    def sources(self) -> Mapping[str, int]:
        """Bytes by the label of the source."""


def publish(layer: Layer, file: Weights, fetched: Fetched) -> Path:
    """
    Give fetched bytes their name and return it; their staging folder goes.

    Raises:
        Corrupt: they are not the file's, or no sound safetensors; nothing was changed.
        NoSpace, ReadOnly: the layer takes nothing more; the bytes stay in staging.
    """
    size = fetched.path.stat().st_size
    if file.sha256 not in (None, fetched.sha256):
        raise Corrupt(f"{file.name} came as {fetched.sha256}, not {file.sha256}")
    if size != fetched.size or file.size not in (None, size):
        raise Corrupt(f"{file.name} came as {size} bytes, not {file.size}")
    _refuse_pickles(file)
    with layer.writes():
        path = _name(
            layer, file, fetched.path, fetched.sha256, "fetched", fetched.sources
        )
        shutil.rmtree(layer.root / ".staging" / file.key, ignore_errors=True)
    return path


def adopt(
    layer: Layer,
    file: Weights,
    path: Path,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    stop: Event | None = None,
) -> Path:
    """
    Make a file that is there already ours, by hashing it once and without copying it.

    Args:
        path: ComfyUI's own name in this layer, or a file elsewhere on the same volume.
        sha256: what it must be, when the manifest does not say.
        progress: told bytes done and in all, every 4 MiB.
        stop: ends the reading.

    Raises:
        Corrupt: it is another file. It is left where it is.
        CannotLink: it is elsewhere, and cannot be linked: fetch it as a source.
        Stopped, NoSpace, ReadOnly: as they say.
    """
    _refuse_pickles(file)
    placed = path == layer.view(file.folder, file.name)
    if placed and _outside(layer, path):
        return _note(layer, file, path, sha256, progress, stop)
    with layer.writes():
        held = layer.staging(file.key) / "adopted"
        held.unlink(missing_ok=True)
        try:
            os.link(path, held)
        except OSError as error:
            if not placed:
                raise CannotLink(f"{path} cannot be linked to {layer.root}") from error
            if error.errno == errno.EXDEV:  # `models` is a link to another volume
                return _note(layer, file, path, sha256, progress, stop)
            held = path
        try:
            found = digest(held, progress, stop)
            wanted = file.sha256 or sha256
            if wanted not in (None, found):
                raise Corrupt(f"{path} has the sha256 {found}, not {wanted}")
            named = _name(layer, file, held, found, "adopted", {})
        finally:
            if held != path:
                held.unlink(missing_ok=True)
        shutil.rmtree(layer.root / ".staging" / file.key, ignore_errors=True)
    return named


def _outside(layer: Layer, path: Path) -> bool:
    """Whether links lead from a name of the layer to where nothing is ours."""
    real, homes = path.resolve(), (layer.root, layer.root / "models")
    return not any(real.is_relative_to(home.resolve()) for home in homes)


def _note(
    layer: Layer,
    file: Weights,
    path: Path,
    sha256: str | None,
    progress: Progress | None,
    stop: Event | None,
) -> Path:
    """Say in a receipt what a file is, and leave it as it is."""
    found = digest(path, progress, stop)
    wanted = file.sha256 or sha256
    if wanted not in (None, found):
        raise Corrupt(f"{path} has the sha256 {found}, not {wanted}")
    with layer.writes():
        name = f"{file.folder}/{file.name}"
        receipts.stamp(layer, path, name, found, "adopted")
        return _settle(layer, file, found)


def relink(layer: Layer, file: Weights, sha256: str) -> Path:
    """
    Give bytes that the layer has the file's name, without reading them.

    Raises:
        Missing: it does not have them, or nothing says that they were verified.
    """
    receipt = receipts.read(layer, sha256)
    held = None if receipt is None else receipts.held(layer, receipt)
    if held is None:
        raise Missing(f"{layer.root} has no verified bytes of {file.name}")
    with layer.writes():
        name = f"{file.folder}/{file.name}"
        receipts.stamp(layer, held, name, sha256, "verified")
        _claim(layer, file, held, lambda path: link(held, path))
        return _settle(layer, file, sha256)


class CannotLink(ModelsError):
    """A file is on another volume, or on one without hard links."""

    code = "cannot_link"


def _refuse_pickles(file: Weights) -> None:
    if not file.name.endswith((safetensors.SUFFIX, *BESIDE)) and file.sha256 is None:
        raise Corrupt(
            f"{file.name} is not safetensors, and the manifest has no sha256 of it",
            hint="other formats may run code when they are loaded",
        )


def _name(
    layer: Layer,
    file: Weights,
    data: Path,
    sha256: str,
    how: receipts.How,
    sources: Mapping[str, int],
) -> Path:
    """Move bytes that are known to be `sha256` to where they belong."""
    with suppress(PermissionError):  # adopted: another user's, or only to be read
        if layer.mtime_s is not None:
            os.utime(data, (layer.mtime_s, layer.mtime_s))
        flush(data)
        if sys.platform != "win32":  # there a read-only file cannot be replaced
            data.chmod(layer.modes.file)
    name = f"{file.folder}/{file.name}"
    receipts.stamp(layer, data, name, sha256, how, sources)
    if layer.mode == "store":
        blob = layer.blob(sha256)
        layer.mkdir(blob.parent)
        _to_blob(layer, data, blob)
        _claim(layer, file, blob, lambda path: link(blob, path))
    elif data != layer.view(file.folder, file.name):
        _claim(layer, file, data, lambda path: move(data, path))
    return _settle(layer, file, sha256)


def _to_blob(layer: Layer, data: Path, blob: Path) -> None:
    try:
        move(data, blob)
    except (
        FileExistsError
    ):  # another process was first, or these bytes were here before
        receipt = receipts.read(layer, blob.name)
        if receipt is None or not receipt.covers(blob):
            data.replace(blob)  # what lies there may be damaged; ours was hashed now
    data.unlink(missing_ok=True)
    fsync_folder(blob.parent)


def _claim(
    layer: Layer, file: Weights, of: Path, create: Callable[[Path], None]
) -> None:
    """
    Create ComfyUI's name for the bytes `of`; `create` refuses a name that is taken.

    What has the name is replaced in one step when it is ours, and moved away when not.
    """
    view = layer.view(file.folder, file.name)
    layer.mkdir(view.parent)
    for _ in range(3):
        try:
            create(view)
            break
        except FileExistsError:
            if view.exists() and view.samefile(of):
                break
        if not (_alike(view, of) or receipts.owner(layer, view)):
            with suppress(FileNotFoundError):
                reason = "it had the name of a file that was published"
                quarantine(layer, file, view, reason, foreign=True)
        else:
            with partial(view) as part:
                create(part)
                part.replace(view)
            break
    else:
        raise ModelsError(f"somebody else keeps writing {view}")
    fsync_folder(view.parent)


def _alike(view: Path, of: Path) -> bool:
    """Whether two safetensors are the same file but for what a bad disk may change."""
    try:
        same = view.stat().st_size == of.stat().st_size
        return same and safetensors.fingerprint(view) == safetensors.fingerprint(of)
    except (OSError, Corrupt):
        return False


def _settle(layer: Layer, file: Weights, sha256: str) -> Path:
    """Look at the published file as a reader does; date its receipt as it is now."""
    view, name = layer.view(file.folder, file.name), f"{file.folder}/{file.name}"
    receipt = receipts.read(layer, sha256)
    # Network volumes may date a file when it is closed, and in mode "direct" another
    # process may put the same bytes there just now: who comes last has the last word.
    for _ in range(10):
        if receipt is not None and receipt.doubt(view) is None:
            return view
        receipt = receipts.stamp(layer, view, name, sha256, "fetched")
    raise Corrupt(f"{view} was published, but somebody else writes to it")

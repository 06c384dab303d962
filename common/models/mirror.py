"""
Fill a mirror with what is here: a folder or a bucket that has files by their sha256.

    blobs/sha256/ab/<64 hex>

The bytes are hashed on their way, and a name appears when they are right: a folder's by
a rename, a bucket's when a multipart upload is ended.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from common.disk import DISK_FULL, partial, publish_part
from common.models.digest import digest
from common.models.errors import (
    AuthNeeded,
    BadManifest,
    Corrupt,
    NoSpace,
    ReadOnly,
    SourcesFailed,
    Stopped,
)
from common.models.layer import REFUSED
from common.models.sources import S3Access, mirror_path
from common.models.sources.s3 import KEYS, S3Source
from common.source_urls import LocalUrl, S3Url, parse

if TYPE_CHECKING:
    from obstore.store import S3Store

#: Bytes of a part. A bucket takes 10 000 parts: files of up to 160 GB.
PART = 16 << 20
PARALLEL = 4  #: parts on their way at once; each is in memory
#: Seconds that one part may take: 16 MiB at 55 kB/s.
PART_S = 300.0

Progress = Callable[[int, int], None]  #: bytes done, bytes in all


class Mirror(Protocol):
    """One place that keeps files by their sha256."""

    def size(self, sha256: str) -> int | None:
        """Return the bytes of what it has; None = it has nothing of that name."""

    def digest(
        self, sha256: str, progress: Progress, stop: threading.Event
    ) -> str | None:
        """
        Read what it has of a name, and return its sha256; None = it cannot be read.

        Raises:
            Stopped: `stop` was set.
            AuthNeeded, SourcesFailed: as they say.
        """

    def put(
        self, path: Path, sha256: str, progress: Progress, stop: threading.Event
    ) -> None:
        """
        Copy a file there, or leave no trace of it.

        Raises:
            Corrupt: the file has another sha256.
            Stopped: `stop` was set.
            AuthNeeded, NoSpace, ReadOnly, SourcesFailed: as they say.
        """


def open_mirror(target: str, access: S3Access) -> Mirror:
    """
    Return the mirror at `local:///folder` or `s3://bucket/prefix`; asks nobody.

    Raises:
        BadManifest: it is no such address.
    """
    try:
        url = parse(f"{target.rstrip('/')}/blobs")
    except ValueError as error:
        raise BadManifest(f"{target} {error}") from None
    match url:
        case LocalUrl() if Path(url.path).is_absolute():
            return Folder(Path(url.path).parent)
        case S3Url():
            return Bucket(target.rstrip("/"), url, access)
    raise BadManifest(
        f"{target} is not a place to write to",
        "name local:///folder or s3://bucket/prefix",
    )


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    root: Path

    def size(self, sha256: str) -> int | None:
        """As the protocol says."""
        try:
            return (self.root / mirror_path(sha256)).stat().st_size
        except FileNotFoundError:
            return None

    def digest(
        self, sha256: str, progress: Progress, stop: threading.Event
    ) -> str | None:
        """As the protocol says."""
        try:
            return digest(self.root / mirror_path(sha256), progress, stop)
        except OSError:  # a disk that goes bad says it in its own words
            return None

    def put(
        self, path: Path, sha256: str, progress: Progress, stop: threading.Event
    ) -> None:
        """As the protocol says."""
        there = self.root / mirror_path(sha256)
        try:
            there.parent.mkdir(parents=True, exist_ok=True)
            with partial(there) as part:
                with part.open("wb") as file:
                    for block in _checked(path, sha256, progress, stop):
                        file.write(block)
                publish_part(part, there)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise NoSpace(f"{self.root} is full", "free some space") from error
            if error.errno in REFUSED:
                raise ReadOnly(f"{self.root} refuses: {error.strerror}") from error
            raise


@dataclass(frozen=True)
class Bucket:
    """A bucket, or what is below a prefix of one."""

    label: str
    url: S3Url  #: of "blobs" below the prefix
    access: S3Access

    def size(self, sha256: str) -> int | None:
        """As the protocol says."""
        import obstore

        try:
            with _refusals(self.label):
                return int(obstore.head(self._store(), self._key(sha256))["size"])
        except FileNotFoundError:
            return None

    def digest(
        self, sha256: str, progress: Progress, stop: threading.Event
    ) -> str | None:
        """As the protocol says."""
        import obstore

        store, key, size = self._store(), self._key(sha256), self.size(sha256)
        if size is None:
            return None
        hasher = hashlib.sha256()
        try:
            # In parts: the time that a request may take is for one of them.
            for start in range(0, size, PART):
                if stop.is_set():
                    raise Stopped(f"stopped while reading {self.label}")
                end = min(start + PART, size)
                with _refusals(self.label):
                    hasher.update(obstore.get_range(store, key, start=start, end=end))
                progress(end, size)
        except FileNotFoundError:
            return None
        return hasher.hexdigest()

    def put(
        self, path: Path, sha256: str, progress: Progress, stop: threading.Event
    ) -> None:
        """As the protocol says."""
        import obstore

        # What our own generator raises comes through, after the upload was aborted.
        try:
            with _refusals(self.label):
                obstore.put(
                    self._store(),
                    self._key(sha256),
                    _checked(path, sha256, progress, stop),
                    use_multipart=True,
                    chunk_size=PART,
                    max_concurrency=PARALLEL,
                )
        except FileNotFoundError:
            hint = "make the bucket first"
            raise SourcesFailed(
                f"{self.label}: there is no such bucket", hint
            ) from None

    def _key(self, sha256: str) -> str:
        return f"{self.url.key.removesuffix('blobs')}{mirror_path(sha256)}"

    def _store(self) -> S3Store:
        return S3Source(self.label, self.url, self.access, PART_S).store()


@contextmanager
def _refusals(label: str) -> Iterator[None]:
    """Say what a bucket refuses; the library's own text repeats requests."""
    from obstore.exceptions import (
        BaseError,
        PermissionDeniedError,
        UnauthenticatedError,
    )

    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError):
        raise AuthNeeded(f"{label}: the bucket refuses us", KEYS) from None
    except FileNotFoundError:
        raise
    except BaseError as error:
        words = f"{label} does not answer ({type(error).__name__})"
        hint = f"is AWS_ENDPOINT_URL right and reachable? {KEYS}"
        raise SourcesFailed(words, hint) from None


def _checked(
    path: Path, sha256: str, progress: Progress, stop: threading.Event
) -> Iterator[bytes]:
    """Yield a file's bytes; at the end of wrong ones, raise Corrupt."""
    hasher, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while block := file.read(PART):
            if stop.is_set():
                raise Stopped(f"stopped while copying {path.name}")
            hasher.update(block)
            yield block
            done += len(block)
            progress(done, size)
    found = hasher.hexdigest()
    if found != sha256:
        raise Corrupt(
            f"{path}: its sha256 is {found}, not {sha256}",
            "'wan models repair' fetches what is wrong again",
        )

"""
One fetch per file, between the threads, processes and hosts that share a volume.

A lock of the system where it keeps others out, else a lease: a file whose holder
touches it every 10 s, and which another host takes over when it was not touched for
30 s. Either saves work only; what is published is right without it. A holder that lost
its lease is told to stop.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from weakref import WeakValueDictionary

from filelock import (
    BaseFileLock,
    FileLock,
    LeaseSettingsMismatch,
    SoftFileLease,
    SoftReadWriteLock,
    Timeout,
)
from pydantic import TypeAdapter, ValidationError

from common.models.errors import Locked, NoSpace, Stopped
from common.models.layer import Layer


@dataclass(frozen=True)
class LeaseSettings:
    """Seconds. All that share a volume must agree on `duration_s`."""

    duration_s: float = 30.0  #: untouched for so long, a lease is taken over
    heartbeat_s: float = 10.0
    poll_s: float = 0.25
    patience_s: float = 1800.0  #: a holder that gets nowhere for so long is given up
    timeout_s: float | None = None  #: in all; None = as long as the holder gets on


SETTINGS = LeaseSettings()


@dataclass(frozen=True)
class Holder:
    """Who has a lease, and how far they are."""

    host: str
    pid: int
    since: float  #: seconds since 1970, the holder's clock
    done: int = 0  #: bytes
    total: int | None = None  #: bytes

    def __str__(self) -> str:
        of = "" if not self.total else f" ({100 * self.done // self.total} %)"
        return f"process {self.pid} on {self.host}{of}"


Waiting = Callable[[Holder | None], None]

_HOLDER = TypeAdapter(Holder)
_HEAR_S = 0.5  # how soon a stop is heard while gc is waited for
_SHARED = 0o664  # the group may take over what a dead pod of another user held


class Lease:
    """A lease that is held."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._holder = Holder(socket.gethostname(), os.getpid(), time.time())
        self._next = 0.0
        self.lost: str | None = None  #: why it is no longer held

    def progress(self, done: int, total: int | None) -> None:
        """Tell who waits how far we are; written once a second at most."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        self._holder = replace(self._holder, done=done, total=total)
        part = self._record.with_suffix(f".{os.getpid()}.part")
        with suppress(OSError):  # a full disk must not end what we hold it for
            part.write_text(json.dumps(asdict(self._holder)), "utf-8")
            part.replace(self._record)


@contextmanager
def lease(
    layer: Layer,
    key: str,
    *,
    stop: Event,
    waiting: Waiting | None = None,
    settings: LeaseSettings = SETTINGS,
) -> Iterator[Lease]:
    """
    Hold the one right to fetch a file; wait for it as long as its holder gets on.

    Args:
        key: the file's.
        stop: ends the waiting when it is set, and **is set when the lease is lost**:
            give one that is for this file only.
        waiting: told who holds it, about once a second; None = not known yet.
        settings: how long things take.

    Raises:
        Locked: waited long enough; the message names the holder.
        Stopped: `stop` was set while waiting.
        ReadOnly, NoSpace: no lock can be made.
    """
    record = layer.lock(f"{key}.json")
    held = Lease(record)
    wait = _Wait(record, stop, waiting, settings)

    def lose(reason: str) -> None:
        held.lost = reason
        stop.set()

    inner = _thread_lock(record)
    while not inner.acquire(timeout=settings.poll_s):
        if wait.over():
            raise wait.error(key)
    try:
        lock = _lock(layer, key, settings, lose)
        with layer.writes():
            try:
                lock.acquire(poll_interval=settings.poll_s, cancel_check=wait.over)
            except Timeout as error:
                raise wait.error(key) from error
        try:
            held.progress(0, None)
            yield held
        finally:
            if held.lost is None:
                record.unlink(missing_ok=True)
            lock.release()
    finally:
        inner.release()


def holder(layer: Layer, key: str) -> Holder | None:
    """Return who last said that they hold a file's lease."""
    return _holder(layer.root / ".locks" / f"{key}.json")


def live(layer: Layer, settings: LeaseSettings = SETTINGS) -> frozenset[str]:
    """Return the keys whose lease somebody holds now, or may hold."""
    found = set()
    for path in (layer.root / ".locks").glob("*.l*"):
        if path.suffix not in (".lock", ".lease") or path.name.startswith("gc."):
            continue
        lock = _lock(layer, path.stem, settings, lambda _: None)
        try:
            # A lease is only known to be dead after its time: until then it lives.
            with lock.acquire(blocking=False):
                pass
        except (Timeout, LeaseSettingsMismatch, OSError):
            found.add(path.stem)
    return frozenset(found)


@contextmanager
def reading(
    layer: Layer, timeout_s: float = 600.0, *, stop: Event | None = None
) -> Iterator[None]:
    """
    Keep gc away from what we find, until we have said in `refs` that we use it.

    There is no such lock where the volume has no hard links, and between users, as the
    library keeps it for the one who made it: there gc heeds the leases, what was used
    lately, and the age of files only.

    Raises:
        Locked: gc takes longer than we wait.
        Stopped: `stop` was set while waiting.
        ReadOnly: the lock cannot be made.
    """
    if not (layer.writable and layer.capabilities.hardlink):
        yield
        return
    gate = _gate(layer)
    try:
        # On a full volume gc has no lock either, and what is there needs none.
        cleaned = _locked(f"{layer.root} is being cleaned")
        with suppress(NoSpace), layer.writes(), cleaned:
            try:
                _enter(gate, timeout_s, stop)
            except PermissionError:
                if _is_ours(gate):
                    raise
        yield
    finally:
        gate.close()


@contextmanager
def collecting(layer: Layer, timeout_s: float = 60.0) -> Iterator[None]:
    """
    Keep everybody else away while files are moved to the trash.

    Raises:
        Locked: somebody reads, or cleans, for longer than we wait.
        ReadOnly: another user has the lock.
    """
    gate = _gate(layer) if layer.capabilities.hardlink else None
    alone = _lock(layer, "gc", SETTINGS, lambda _: None)
    try:
        # A volume without a free byte takes no lock, and this is what makes room on it;
        # what is leased, young or was used lately stays in any case.
        in_use = _locked(f"{layer.root} is in use")
        with suppress(NoSpace), layer.writes(), in_use:
            if gate is None:
                alone.acquire(timeout=timeout_s)
            else:
                gate.acquire_write(timeout_s)
        yield
    finally:
        alone.release()
        if gate is not None:
            gate.close()


class _Wait:
    """What happens while we wait: the holder is looked at, the caller told."""

    def __init__(
        self,
        record: Path,
        stop: Event,
        waiting: Waiting | None,
        settings: LeaseSettings,
    ) -> None:
        self._record, self._stop, self._waiting = record, stop, waiting
        self._settings = settings
        self._began = self._moved = time.monotonic()
        self._told = 0.0
        self._seen: Holder | None = None

    def over(self) -> bool:
        """Whether we wait no longer; asked at each poll."""
        now, settings = time.monotonic(), self._settings
        if now - self._told >= 1.0:
            self._told = now
            seen = _holder(self._record)
            if seen != self._seen:
                self._seen, self._moved = seen, now
            if self._waiting is not None:
                self._waiting(seen)
        whole = settings.timeout_s
        return (
            self._stop.is_set()
            or now - self._moved > settings.patience_s
            or (whole is not None and now - self._began > whole)
        )

    def error(self, key: str) -> Locked | Stopped:
        """Return why we wait no longer."""
        if self._stop.is_set():
            return Stopped(f"stopped while waiting for {key}")
        who = "somebody" if self._seen is None else str(self._seen)
        return Locked(
            f"{who} is fetching {key} and does not end",
            hint="wait, or end that process: its lease then runs out by itself",
        )


_threads: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
_threads_lock = threading.Lock()


def _thread_lock(path: Path) -> threading.Lock:
    with _threads_lock:
        return _threads.setdefault(str(path), threading.Lock())


def _lock(
    layer: Layer, name: str, settings: LeaseSettings, lose: Callable[[str], None]
) -> BaseFileLock:
    if layer.capabilities.flock:
        return FileLock(
            layer.lock(f"{name}.lock"),
            mode=_SHARED,
            thread_local=False,
            is_singleton=False,
        )
    return SoftFileLease(
        layer.lock(f"{name}.lease"),
        lease_duration=settings.duration_s,
        heartbeat_interval=settings.heartbeat_s,
        on_compromise=lambda loss: lose(loss.reason),
        mode=_SHARED,
        thread_local=False,
        is_singleton=False,
    )


def _gate(layer: Layer) -> SoftReadWriteLock:
    # One of its own each time: a shared one refuses, where it should wait, when this
    # very process reads.
    return SoftReadWriteLock(
        layer.lock("gc.rw.lock"),
        is_singleton=False,
        heartbeat_interval=10.0,
        stale_threshold=30.0,
    )


def _enter(gate: SoftReadWriteLock, timeout_s: float, stop: Event | None) -> None:
    """Go in as a reader, in short steps: the gate itself hears no stop."""
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > _HEAR_S:
        with suppress(Timeout):
            gate.acquire_read(_HEAR_S)
            return
        if stop is not None and stop.is_set():
            raise Stopped("stopped while the root is being cleaned")
    gate.acquire_read(max(0.0, left))


def _is_ours(gate: SoftReadWriteLock) -> bool:
    """Whether the folder of a shared lock, if there is one, was made by our user."""
    try:
        return Path(f"{gate.lock_file}.rw").stat().st_uid == os.geteuid()
    except (OSError, AttributeError):  # Windows has no users of that kind
        return True


@contextmanager
def _locked(message: str) -> Iterator[None]:
    try:
        yield
    except Timeout as error:
        raise Locked(message, "try again when it has ended") from error


def _holder(record: Path) -> Holder | None:
    try:
        return _HOLDER.validate_json(record.read_bytes())
    except (OSError, ValidationError):
        return None

"""Ports of this machine: a free one for us or a child, and who holds one."""

from __future__ import annotations

import errno
import socket
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

MANY = 100  # ports tried, with the first
BACKLOG = 2048  # connections that wait until the service is up


class PortTaken(Exception):
    """The port that was asked for is not free; the message names who holds it."""


class NoFreePort(Exception):
    """None of the ports that were tried is free."""


@dataclass(frozen=True)
class Claim:
    """A port for a child of ours, until it is released or this process ends."""

    port: int
    lock: FileLock | None = None

    def release(self) -> None:
        """Let others have it."""
        if self.lock is not None:
            self.lock.release()


def listen(host: str, port: int, *, only: bool) -> socket.socket:
    """
    Return a socket on `port` or, unless `only` that one will do, on the next free one.

    It listens, so nobody can take the port from under us while the rest starts.

    Raises:
        PortTaken, NoFreePort: with what to do.
        OSError: the host is not an address of this machine.
    """
    if not only:
        bound, claimed = _first_free(host, port)
        claimed.release()
        return bound
    try:
        return _bound(host, port)
    except OSError as error:
        if not _taken(error):
            raise
    by = holder(port)
    raise PortTaken(f"port {port} is taken" + (f" by {by}" if by else ""))


def claim(host: str, first: int) -> Claim:
    """
    Claim the first port from `first` that nobody listens on or has claimed; 0 = any.

    A child binds its port seconds later. Meanwhile another service that starts would
    find it free too, and then take our child for its own.

    Raises:
        NoFreePort: there is none among a hundred.
    """
    bound, claimed = _first_free(host, first)
    bound.close()
    return claimed


def insisted(port: int) -> Claim:
    """Claim the very port that was asked for, so that others look further."""
    try:
        return Claim(port, _locked(port))
    except Timeout:  # the child will say that it is taken
        return Claim(port)


def next_free(host: str, first: int) -> int:
    """
    Return the first port from `first` that nobody has; 0 = any.

    Raises:
        NoFreePort: there is none among a hundred.
    """
    claimed = claim(host, first)
    claimed.release()
    return claimed.port


def _first_free(host: str, first: int) -> tuple[socket.socket, Claim]:
    tried = range(first, min(first + MANY, 65536)) if first else (0,)
    for one in tried:
        try:
            bound = _bound(host, one)
        except OSError as error:
            if not _taken(error):
                raise
            continue
        if one == 0:  # the system does not give it twice
            return bound, Claim(bound.getsockname()[1])
        try:
            return bound, Claim(one, _locked(one))
        except Timeout:
            bound.close()
    raise NoFreePort(f"no port from {tried[0]} to {tried[-1]} is free")


def _locked(port: int) -> FileLock | None:
    """Lock a port's file, on which services agree; raises Timeout if another has it."""
    path = Path(tempfile.gettempdir()) / f"wan-port-{port}.lock"
    lock = FileLock(path, timeout=0, mode=0o666, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise
    except OSError:  # another user's file, or no folder to write to
        return None
    return lock


def holder(port: int) -> str | None:
    """Return who listens on a port, as `name (pid 123)`; None = free, or not told."""
    import psutil

    for pid, status, taken in _listeners():
        if taken == port and status == psutil.CONN_LISTEN and pid:
            with suppress(psutil.Error):
                return f"{psutil.Process(pid).name()} (pid {pid})"
    return None


def _listeners() -> list[tuple[int | None, str, int]]:
    """Return (pid, status, local port) of the TCP sockets that we may see."""
    import psutil

    with suppress(psutil.AccessDenied):
        return [
            (one.pid, one.status, one.laddr.port)
            for one in psutil.net_connections(kind="tcp")
            if one.laddr
        ]
    # macOS shows all of them to root only, and to us those of our own processes.
    found: list[tuple[int | None, str, int]] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += [
                (process.pid, one.status, one.laddr.port)
                for one in process.net_connections(kind="tcp")
                if one.laddr
            ]
    return found


def _bound(host: str, port: int) -> socket.socket:
    address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(address[0], address[1])
    try:
        if sys.platform == "win32":
            # There, REUSEADDR would let us share a port that somebody listens on.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Here it takes over a port whose last connections are still dying.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address[4])
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _taken(error: OSError) -> bool:
    # Windows also says EACCES, for a port that another process holds for itself; for
    # Linux that is a port below 1024.
    held = sys.platform == "win32" and error.errno == errno.EACCES
    return error.errno == errno.EADDRINUSE or held

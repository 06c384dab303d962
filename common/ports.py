"""Ports of this machine: the next free one, who holds one, a socket bound to one."""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import suppress

MANY = 100  # ports tried, with the first
BACKLOG = 2048  # connections that wait until the service is up


class PortTaken(Exception):
    """The port that was asked for is not free; the message names who holds it."""


class NoFreePort(Exception):
    """None of the ports that were tried is free."""


def listen(host: str, port: int, *, only: bool) -> socket.socket:
    """
    Return a socket on `port` or, unless `only` that one will do, on the next free one.

    It listens, so nobody can take the port from under us while the rest starts.

    Raises:
        PortTaken, NoFreePort: with what to do.
        OSError: the host is not an address of this machine.
    """
    tried = (port,) if only or port == 0 else (*range(port, min(port + MANY, 65536)),)
    for one in tried:
        try:
            return _bound(host, one)
        except OSError as error:
            if not _taken(error):
                raise
    if only:
        by = holder(port)
        raise PortTaken(f"port {port} is taken" + (f" by {by}" if by else ""))
    raise NoFreePort(f"no port from {tried[0]} to {tried[-1]} is free")


def next_free(host: str, first: int) -> int:
    """
    Return the first port from `first` that nobody listens on; 0 = any.

    Raises:
        NoFreePort: there is none among a hundred.
    """
    with listen(host, first, only=False) as probe:
        port: int = probe.getsockname()[1]
        return port


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

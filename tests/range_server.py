"""
A server of byte ranges on loopback, fast enough to measure with, and with faults.

    python -m tests.range_server FOLDER --port 8000 [--rate BYTES_PER_SECOND]

It answers as a plain web server, as a hub (`HEAD` with `X-Repo-Commit`) and as S3
(`GET /bucket/key`): the last part of a path names a file of FOLDER.
"""

import argparse
import contextlib
import http.client
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """One request, as a fault rule sees it; `number` counts from 1 over the server."""

    number: int
    method: str
    path: str
    headers: dict
    start: int | None  #: first byte of its Range; None = it has none


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer; the default is nothing."""

    status: int | None = None  #: answer this, without a body
    headers: dict = field(default_factory=dict)
    cut: int | None = None  #: close after so many bytes of the body
    stall: int | None = None  #: send nothing more after so many bytes
    flip: int | None = None  #: the byte of the file at this offset is wrong
    whole: bool = False  #: 200 and everything, whatever the Range
    total: int | None = None  #: lie about the file's size
    silent: bool = False  #: no answer at all


NOTHING = Fault()


class RangeServer:
    """
    Serves a folder. `fault(asked) -> Fault | None` is called for each request.

    `asked` lists the requests; `sent` counts bytes of bodies handed to the kernel.
    """

    def __init__(self, folder, fault=None, rate=None, port=0):
        self.folder = Path(folder)
        self.fault = fault or (lambda asked: None)
        self.rate = rate
        self.asked = []
        self.sent = 0
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._open = set()
        self._threads = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        self._spawn(self._accept)
        return self

    def __exit__(self, *_):
        self.over.set()
        # Closing a listening socket does not wake an accept() on Linux; this does.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _spawn(self, work, *args):
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection):
        pace = Pace(self.rate, self.over)
        try:
            with contextlib.suppress(OSError), connection.makefile("rb") as lines:
                while self._answer(connection, lines, pace):
                    pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _answer(self, connection, lines, pace):
        """Answer one request; False = the connection is to be closed."""
        first = lines.readline().decode("latin-1").split()
        if len(first) != 3:
            return False
        headers = {k.lower(): v for k, v in http.client.parse_headers(lines).items()}
        wanted = headers.get("range", "").removeprefix("bytes=").partition("-")
        start = int(wanted[0]) if wanted[0] else None
        with self._lock:
            number = len(self.asked) + 1
            asked = Asked(number, first[0], first[1], headers, start)
            self.asked.append(asked)
        fault = self.fault(asked) or NOTHING
        if fault.silent:
            self.over.wait(60)
            return False
        path = self.folder / first[1].partition("?")[0].rpartition("/")[2]
        if fault.status or not path.is_file():
            connection.sendall(
                head(fault.status or 404, {"Content-Length": 0} | fault.headers)
            )
            return True
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            about = {
                "Accept-Ranges": "bytes",
                "ETag": f'"{size:032x}"',
                "Last-Modified": "Sat, 21 Nov 2026 00:00:00 GMT",
                "X-Repo-Commit": "0" * 40,
            }
            stop = size
            if start is None or fault.whole:
                start, status = 0, 200
            elif start >= size:
                start = stop = 0
                status = 416
                about["Content-Range"] = f"bytes */{size}"
            else:
                status = 206
                stop = min(size, int(wanted[2]) + 1 if wanted[2] else size)
                about["Content-Range"] = (
                    f"bytes {start}-{stop - 1}/{fault.total or size}"
                )
            about["Content-Length"] = stop - start
            connection.sendall(head(status, about | fault.headers))
            if first[0] == "HEAD" or stop == start:
                return True
            return self._body(connection, file, start, stop, fault, pace)

    def _body(self, connection, file, start, stop, fault, pace):
        ends = [stop - start]
        ends += [end for end in (fault.cut, fault.stall) if end is not None]
        end = start + min(ends)
        if fault.flip is not None and start <= fault.flip < end:
            self._send(connection, file, start, fault.flip, pace)
            file.seek(fault.flip)
            connection.sendall(bytes([file.read(1)[0] ^ 1]))
            start = fault.flip + 1
        self._send(connection, file, start, end, pace)
        if end == stop:
            return True
        if fault.stall is not None:
            self.over.wait(60)
        return False

    def _send(self, connection, file, start, end, pace):
        while start < end:
            count = os.sendfile(
                connection.fileno(), file.fileno(), start, min(end - start, pace.chunk)
            )
            if not count:
                raise OSError("the file became shorter")
            start += count
            with self._lock:
                self.sent += count
            pace.wait(count)


class Pace:
    """Holds one connection to a rate, with 100 ms of credit."""

    def __init__(self, rate, over):
        self.rate = rate
        self.over = over
        self.chunk = 4 << 20 if rate is None else max(4096, min(1 << 18, rate // 20))
        self.due = time.monotonic()

    def wait(self, count):
        if self.rate is None:
            return
        now = time.monotonic()
        self.due = max(self.due, now - 0.1) + count / self.rate
        if self.due > now:
            self.over.wait(self.due - now)


def head(status, headers):
    """Return the head of an answer."""
    reason = http.client.responses.get(status, "")
    lines = [f"HTTP/1.1 {status} {reason}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--sent", help="keep the bytes sent so far in this file")
    args = parser.parse_args()
    with RangeServer(args.folder, rate=args.rate, port=args.port) as server:
        while not server.over.wait(0.02):
            if args.sent:
                Path(args.sent).write_text(str(server.sent), encoding="ascii")


if __name__ == "__main__":
    main()

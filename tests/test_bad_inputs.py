"""
Each row of data/bad_inputs.jsonl, sent to a running service over a socket of its own.

A row passes when the answer is of the expected class and never a 5xx, comes in time, is
short and tells nothing of the server; and when the server lives and kept its memory.
"""

import asyncio
import base64
import contextlib
import gzip
import json
import re
import threading
import time
import zlib
from functools import partial
from pathlib import Path

import psutil
import pytest

from common.inputs.fetch import fetch
from common.jobs import intake
from tests.live import both
from tests.pictures import chunk, png
from tests.url_server import url_server

LIST = Path(__file__).parent / "data" / "bad_inputs.jsonl"
ROWS = [json.loads(line) for line in LIST.read_text().splitlines()]
GROUPS = sorted({row["group"] for row in ROWS})
KEY = "test-key"
LIMIT_S = 20
AT_ONCE = 6
GROWTH_BYTES = 256 << 20
ANSWER_BYTES = 20_000
LEAK = re.compile(
    rb"Traceback|site-packages|File \"/|/tmp/|/home/|/root/|/usr/lib|sqlite3\."
    rb"|root:x:0|test-key|canary-|pydantic_core|asyncio\.",
    re.IGNORECASE,
)


@pytest.mark.parametrize("group", GROUPS)
async def test_bad_inputs_are_refused(group, tmp_path, monkeypatch):
    """Every row of the group gets the class of answer it is listed with."""
    monkeypatch.setattr(intake, "fetch", partial(fetch, resolve=numbers_only))
    async with (
        url_server() as urls,
        both(
            tmp_path, api_keys=KEY, queue_limit=10_000, input_allow_hosts=urls
        ) as live,
    ):
        port = int(live.url.rpartition(":")[2])
        gate = asyncio.Semaphore(AT_ONCE)

        async def judged(row):
            async with gate:
                started = time.monotonic()
                answer = await asyncio.wait_for(send(row, port, urls), LIMIT_S)
                return row["name"], faults(row, answer, time.monotonic() - started)

        rows = [row for row in ROWS if row["group"] == group]
        with Memory() as memory:
            found = await asyncio.gather(*(judged(row) for row in rows))
        health = await send({"method": "GET", "path": "/health"}, port, urls)
        strangers = set(files(tmp_path / "data"))

    assert {name: wrong for name, wrong in found if wrong} == {}
    assert health.startswith(b"HTTP/1.1 200")
    assert memory.growth < GROWTH_BYTES
    assert not {name for name in strangers if not OURS.fullmatch(name)}


# Names that we made: folders, the database, ids, and what outputs are called.
OURS = re.compile(
    r"(jobs|uploads|tmp|engine|client-\d+|\.lock|jobs\.sqlite3(-\w+)?|(input-)?[0-9a-f-]{32,36}"
    r"|video\.mp4|poster\.jpg|\..*\.part|.*\.partial)"
)


def files(folder):
    """Yield the names of everything in a folder."""
    for path in folder.rglob("*"):
        yield path.name


def faults(row, answer, took_s):
    """Return what is wrong with an answer."""
    answer = re.sub(rb"\A(HTTP/1\.1 1\d\d .*?\r\n\r\n)+", b"", answer, flags=re.DOTALL)
    statuses = re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)
    status = statuses[-1].decode() if statuses else "closed"
    allowed = row["expect"].split("|")
    wrong = []
    if len(statuses) > (2 if row.get("gen", {}).get("kind") == "idem_conflict" else 1):
        wrong.append("is taken for several requests")
    if status not in allowed and f"{status[0]}xx" not in allowed:
        wrong.append(f"{status} instead of {row['expect']}")
    if leak := LEAK.search(answer):
        wrong.append(f"tells {leak[0]!r}")
    if len(answer) > ANSWER_BYTES:
        wrong.append(f"answers {len(answer)} bytes")
    if "400" <= status < "600" and b"application/problem+json" not in answer:
        wrong.append("is refused, but not with a problem")
    if took_s > LIMIT_S:
        wrong.append(f"took {took_s:.0f} s")
    return wrong


class Memory:
    """Watches how far this process grows."""

    def __enter__(self):
        self._process = psutil.Process()
        self._before = self._peak = self._process.memory_info().rss
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self.growth = self._peak - self._before

    def _watch(self):
        while not self._over.wait(0.02):
            self._peak = max(self._peak, self._process.memory_info().rss)


async def numbers_only(host, port):
    """Resolve as the system does, but without asking anybody."""
    if host.rstrip(".").endswith("localhost"):
        return ["127.0.0.1"]
    loop = asyncio.get_running_loop()
    numeric = 4  # AI_NUMERICHOST
    found = await loop.getaddrinfo(host, port, flags=numeric)
    return [str(address[0]) for *_, address in found]


# ---- one row over one connection


async def send(row, port, urls):
    """Send a row and return all that comes back."""
    gen = row.get("gen", {})
    kind = gen.get("kind")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(read(reader))
    try:
        with contextlib.suppress(ConnectionError):
            async for data in wire(row, gen, kind, port, urls):
                writer.write(data)
                await writer.drain()
                if reading.done():
                    break
        return await reading
    finally:
        reading.cancel()
        writer.transport.abort()


async def read(reader):
    """Read to the end; a reset is an end too."""
    answer = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            answer += data
    return bytes(answer)


async def wire(row, gen, kind, port, urls):
    """Yield the bytes of a row's request."""
    method, path = row.get("method", "POST"), row.get("path", "/generate")
    if kind == "long_path":
        path += "?" + "a" * gen["n"]
    line = f"{method} {path} HTTP/1.1\r\n".encode()
    chunked = (("transfer-encoding", "chunked"),)
    match kind:
        case "raw_request":
            yield text(gen, "data")
        case "chunked_raw":
            yield line + heads(row, port, None, chunked) + gen["data"].encode()
        case "chunked_endless":
            yield line + heads(row, port, None, chunked)
            for _ in range(gen["max_mb"] * 16):
                yield b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        case "te_cl":
            yield line + heads(row, port, 6, chunked)
            yield b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
        case "slow_headers":
            yield line
            while True:
                yield b"x-a: b\r\n"
                await asyncio.sleep(1)
        case "slow_body":
            yield line + heads(row, port, 100_000) + b"{"
            while True:
                yield b" "
                await asyncio.sleep(1)
        case "idem_conflict":
            for prompt, connection in (("one", "keep-alive"), ("two", "close")):
                body = json.dumps({"prompt": prompt}).encode()
                more = {"idempotency-key": "conflict", "connection": connection}
                yield line + heads({"headers": more}, port, len(body)) + body
        case _:
            body = await asyncio.to_thread(body_of, row, gen, kind, urls)
            if method == "GET":
                body = b""
            more = []
            if kind == "headers":
                more = [(f"x-{n}", "a") for n in range(gen["n"])]
            if kind == "raw_header":
                more = [gen["line"].split(": ", 1)]
            yield line + heads(row, port, len(body), more)
            for start in range(0, len(body), 1 << 20):
                yield body[start : start + (1 << 20)]


def heads(row, port, length, more=()):
    """Return the header lines; a row's own replace ours, null removes one."""
    lines = {
        "host": f"127.0.0.1:{port}",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "content-length": None if length is None else str(length),
        "connection": "close",
        **row.get("headers", {}),
    }
    pairs = [*lines.items(), *more]
    out = b""
    for name, value in pairs:
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                out += f"{name}: {one}\r\n".encode()
    return out + b"\r\n"


def text(source, name):
    """Return a member that is text, or base64 under the name with _b64."""
    if name in source:
        return source[name].encode()
    return base64.b64decode(source[f"{name}_b64"])


def body_of(row, gen, kind, urls):
    """Return a row's body: as it is listed, or made."""
    if "body" in row:
        return json.dumps(row["body"]).encode()
    if "raw" in row or "raw_b64" in row:
        return text(row, "raw")
    if kind in MADE:
        return MADE[kind](gen)
    if kind == "url_server":
        return fields(image=f"http://{urls}/{gen['case']}")
    return fields()


def fields(**more):
    """Return a good request with more fields."""
    return json.dumps({"prompt": "a cat walks", **more}).encode()


def inside(name, value):
    """Return a request with a field whose JSON is given."""
    return b'{"prompt":"x","%s":%s}' % (name.encode(), value.encode())


def image(data):
    """Return a request with a picture in it."""
    return fields(image=base64.b64encode(data).decode())


def part(name, value):
    """Return one part of a multipart body."""
    head = f'--{"X" * 20}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return f"{head}{value}\r\n".encode()


def packed(gen):
    """Return a gzipped request with a prompt of n letters."""
    return gzip.compress(b'{"prompt":"' + b"a" * gen["n"] + b'"}', 1)


MADE = {
    "field_repeat": lambda g: fields(**{g["field"]: g["text"] * g["times"]}),
    "nest": lambda g: (g["open"] * g["depth"] + g["close"] * g["depth"]).encode(),
    "nest_field": lambda g: inside(
        g["field"], g["open"] * g["depth"] + "1" + g["close"] * g["depth"]
    ),
    "long_key": lambda g: fields(**{"k" * g["n"]: 1}),
    "digits": lambda g: inside(g["field"], g.get("prefix", "") + "9" * g["n"]),
    "pad": lambda g: b" " * g["n"] + fields(),
    "gzip": packed,
    "raw_repeat": lambda g: g["unit"].encode() * g["times"] + text(g, "tail"),
    "multipart_fields": lambda g: (
        part("prompt", "a cat")
        + b"".join(part(f"f{n}", 1) for n in range(g["n"]))
        + f"--{'X' * 20}--\r\n".encode()
    ),
    # The header says it all: what it promises must be refused before it is unpacked.
    "png_bomb": lambda g: image(png(g["w"], g["h"], g["mode"], rows=min(g["h"], 9000))),
    "png_iccp": lambda g: image(
        png(extra=chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(g["mb"] << 20))))
    ),
    "noise_png": lambda g: image(png(g["w"], g["h"], noise=True)),
}

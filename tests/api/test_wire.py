"""Connections that somebody holds for nothing, on purpose or not."""

import asyncio
import contextlib
import logging

import pytest

from common.api import wire
from tests.live import both


@contextlib.asynccontextmanager
async def connected(live, **options):
    """Open a connection of one's own."""
    port = int(live.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def rest(reader):
    """Return all that comes until the service hangs up."""
    async with asyncio.timeout(10):
        return await reader.read()


async def is_cut_off(writer, data):
    """Send until the service will have no more of it."""
    async with asyncio.timeout(10):
        try:
            while True:
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            return True


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nx: y\r\n"])
async def test_a_head_that_does_not_come_is_given_up(live, monkeypatch, sent):
    """408, and the place is free again."""
    monkeypatch.setattr(wire, "HEAD_S", 0.2)
    async with connected(live) as (reader, writer):
        writer.write(sent)
        answer = await rest(reader)

    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"application/problem+json" in answer
    assert b'"request_timeout"' in answer


async def test_a_second_head_has_its_own_time(live, monkeypatch):
    """A connection that is kept alive may be idle; once it begins, it must go on."""
    monkeypatch.setattr(wire, "HEAD_S", 0.3)
    head = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with connected(live) as (reader, writer):
        writer.write(head)
        await reader.readuntil(b'{"status":"ok"}')
        await asyncio.sleep(0.5)
        writer.write(head)
        await reader.readuntil(b'{"status":"ok"}')
        writer.write(head[:-2])
        answer = await rest(reader)

    assert answer.startswith(b"HTTP/1.1 408")


async def test_a_head_without_end_is_refused(live):
    """At 64 KiB, long before memory is a matter."""
    async with connected(live) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n")
        for number in range(66):
            writer.write(b"x-%d: " % number + b"a" * 1000 + b"\r\n")
        answer = await rest(reader)

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"malformed_request" in answer


async def test_what_is_not_http_is_refused(live):
    """With a problem, as everything else."""
    async with connected(live) as (reader, writer):
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        answer = await rest(reader)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in answer


CHUNKED = (
    b"POST /generate HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ntransfer-encoding: %b\r\n\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        CHUNKED % b"chunked" + b"ZZ\r\n{}\r\n0\r\n\r\n",
        CHUNKED % b"chunked" + b"2\r\n{}\r\nZZ\r\n\r\n",
        CHUNKED % b"xchunked" + b"2\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["size", "later size", "coding"],
)
async def test_a_body_that_is_not_http_is_refused(live, caplog, sent):
    """Once, although the request was on its way to a route already."""
    async with connected(live) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await reader.readuntil(b'{"status":"ok"}')
        writer.write(sent)
        answer = await rest(reader)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"content-length") == 1
    assert b"malformed_request" in answer
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    "first", [CHUNKED.replace(b"json", b"x") % b"chunked", b""], ids=["its own", "none"]
)
async def test_nonsense_is_no_answer_to_another_request(live, first):
    """What was answered is not answered again, nor what waits for its answer."""
    async with connected(live) as (reader, writer):
        if first:
            writer.write(first)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
            writer.write(b"ZZ\r\n")
        else:
            writer.write(b"GET /system HTTP/1.1\r\nhost: localhost\r\n\r\n\x16\x03\r\n")
        answer = await rest(reader)

    assert b" 400 " not in answer


UPGRADE = (
    b"%b /jobs/x/ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\n"
    b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        UPGRADE % (b"POST", b"content-length: 2\r\n") + b"{}",
        UPGRADE % (b"GET", b"content-length: 2\r\n") + b"{}",
        UPGRADE % (b"GET", b"transfer-encoding: chunked\r\n") + b"2\r\n{}\r\n0\r\n\r\n",
        UPGRADE % (b"POST", b""),
    ],
    ids=["post", "length", "chunks", "no body"],
)
async def test_a_websocket_begins_without_a_body(live, sent):
    """400 for what would never be answered, and would keep the service from ending."""
    async with connected(live) as (reader, writer):
        writer.write(sent)
        answer = await rest(reader)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"a WebSocket begins with a GET" in answer


async def test_a_denied_websocket_is_answered_once(live, caplog):
    """404, and nothing in the log."""
    async with connected(live) as (reader, writer):
        writer.write(UPGRADE % (b"GET", b""))
        head = await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.05)

    assert head.startswith(b"HTTP/1.1 404")
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_websocket_that_does_not_read_is_cut_off(held, monkeypatch):
    """Though it pings, so that it is alive: its pongs have nowhere to go."""
    monkeypatch.setattr(wire, "STALL_S", 0.3)
    job = await held.job(seed=1)
    ping = b"\x89\xfd\0\0\0\0" + bytes(125)
    async with connected(held, limit=1024) as (reader, writer):
        writer.write(
            (UPGRADE % (b"GET", b"")).replace(b"/x/", b"/%b/" % job["id"].encode())
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        assert await is_cut_off(writer, ping * 20_000)


async def test_a_trailer_is_no_header(live):
    """What is said after the body was not there when the request was judged."""
    body = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    sent = b"POST /generate HTTP/1.1\r\n%b" + body + b"2\r\n{}\r\n0\r\n%b\r\n"
    async with connected(live) as (reader, writer):
        writer.write(sent % (b"", b"host: localhost\r\n"))
        no_host = await reader.readuntil(b"}")
        writer.write(sent % (b"host: localhost\r\n", b"x-request-id: late\r\n" * 5000))
        many = await reader.readuntil(b"request_id")

    assert no_host.startswith(b"HTTP/1.1 421")
    assert b"HTTP/1.1 422" in many
    assert b"late" not in many


async def test_a_reader_that_does_not_read_is_cut_off(tmp_path, monkeypatch):
    """A download stops after a while, and its connection is gone."""
    monkeypatch.setattr(wire, "STALL_S", 0.3)
    async with both(tmp_path) as live:
        job = await live.finished((await live.job())["id"])
        path = live.runtime.files.job(job["id"]) / "video.mp4"
        path.write_bytes(bytes(64 << 20))  # more than any socket buffers
        head = f"GET {job['outputs'][0]['url']} HTTP/1.1\r\nhost: localhost\r\n\r\n"
        async with connected(live, limit=1024) as (reader, writer):
            writer.write(head.encode())
            await reader.readuntil(b"\r\n\r\n")
            assert await is_cut_off(writer, b"\r\n")


async def test_a_body_without_end_ends_with_its_refusal(live, monkeypatch, caplog):
    """The answer comes, the rest is let pass for a while, and then no more."""
    monkeypatch.setattr(wire, "REST_S", 0.3)
    async with connected(live) as (reader, writer):
        writer.write(
            b"POST /generate HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        assert await is_cut_off(writer, b"400\r\n" + bytes(1024) + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 415")
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_body_that_is_cut_short_is_no_error_of_ours(live, caplog):
    """The caller went away; there is nothing to say and nothing to log."""
    async with connected(live) as (_, writer):
        writer.write(
            b"POST /generate HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
        )
        await writer.drain()
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.1)

    assert (await live.get("/health"))[0] == 200
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]

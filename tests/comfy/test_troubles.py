"""The client when sockets drop, go deaf or stall, and engines die, on real ports."""

import asyncio
import base64
import hashlib
import socket
import uuid

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from common.comfy import (
    Absent,
    Comfy,
    EngineUnreachable,
    Finished,
    Queued,
    Running,
    SocketLost,
)
from common.engine.server import serve
from common.engine.settings import EngineSettings
from common.events import Ended, Interrupted, Progress, Succeeded
from tests.comfy.graphs import sampled


async def fault(url, **wanted):
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/embedded/faults", json=wanted) as answer,
    ):
        assert answer.status == 200


async def hear(follower, *kinds):
    """Return the first event of these kinds."""
    while not isinstance(event := await follower.next(20), kinds):
        assert event is not None, f"silence before {kinds}"
    return event


async def finished(comfy, prompt_id):
    async with asyncio.timeout(20):
        while not isinstance(state := await comfy.state(prompt_id), Finished):
            await asyncio.sleep(0.02)
    return state.history


@pytest.fixture
def unused_port():
    """A port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


async def test_dropped_in_mid_run(embedded, connect):
    """A cut socket is told; the run goes on, and history knows its end."""
    url = await embedded(speed=2)
    comfy = await connect(url)
    prompt_id = str(uuid.uuid4())

    with comfy.follow(prompt_id) as follower:
        await comfy.submit(prompt_id, sampled(steps=4))
        await hear(follower, Progress)
        await fault(url, close_sockets=True)
        await hear(follower, SocketLost)
        history = await finished(comfy, prompt_id)

    assert history.status == "success"
    await comfy.wait_until_ready(10)
    await assert_hears(comfy)


async def assert_hears(comfy):
    """Run something, and hear its end."""
    prompt_id = str(uuid.uuid4())
    with comfy.follow(prompt_id) as follower:
        await comfy.submit(prompt_id, sampled(steps=1, seed=uuid.uuid4().int % 10**9))
        await hear(follower, Succeeded)
        await hear(follower, Ended)


async def test_fresh_id_after_a_cut(embedded, connect):
    """A cut may leave the old socket registered, so its client id is not used again."""
    url = await embedded()
    comfy = await connect(url)
    await fault(url, deaf_after_reconnect=True)
    ids = {comfy._feed.client_id}

    for _ in range(3):
        await fault(url, close_sockets=True)
        while comfy.socket_alive:
            await asyncio.sleep(0)
        await comfy.wait_until_ready(10)
        await assert_hears(comfy)
        ids.add(comfy._feed.client_id)

    assert len(ids) == 4


async def test_deaf(embedded, connect):
    """`reconnect` replaces a socket that is open and hears nothing any more."""
    url = await embedded()
    comfy = await connect(url)
    await deafen(url, comfy._feed.client_id)
    prompt_id = str(uuid.uuid4())

    with comfy.follow(prompt_id) as follower:
        await comfy.submit(prompt_id, sampled())
        history = await finished(comfy, prompt_id)
        heard = await follower.next(0.2)
        alive = comfy.socket_alive
        await comfy.reconnect()
        told = await follower.next(5)

    assert history.status == "success"
    assert (heard, alive, told) == (None, True, SocketLost())
    assert comfy.socket_alive
    await assert_hears(comfy)


async def deafen(url, client_id):
    """Take a client's place at the engine and give it up, as a late close does."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/ws?clientId={client_id}"),
    ):
        pass


async def test_ended_between_two_looks():
    """A prompt that leaves the queue while we look is finished, not absent."""
    looks = []

    async def answer(request):
        looks.append(request.path)
        done = {"p": {"outputs": {}, "status": {"status_str": "success"}}}
        return web.json_response(done if len(looks) == 3 else {})

    app = web.Application()
    app.router.add_get("/history/p", answer)
    app.router.add_get("/queue", answer)
    async with TestServer(app) as server:
        comfy = Comfy(str(server.make_url("")))
        await comfy.start()
        state = await comfy.state("p")
        await comfy.aclose()

    assert looks == ["/history/p", "/queue", "/history/p"]
    assert state.history.status == "success"


async def test_lost_end(embedded, connect):
    """When the end is never said, state knows it."""
    url = await embedded()
    comfy = await connect(url)
    names = ["execution_success", "executing_null", "executed"]
    await fault(url, drop_frames=names)
    prompt_id = str(uuid.uuid4())

    with comfy.follow(prompt_id) as follower:
        await comfy.submit(prompt_id, sampled())
        while (event := await follower.next(0.5)) is not None:
            assert not isinstance(event, Succeeded | Ended)

    assert (await finished(comfy, prompt_id)).files_by_node["58"]


async def test_cancel_running_and_queued(embedded, connect):
    """The queued one vanishes, the running one is interrupted, and both for good."""
    comfy = await connect(await embedded(speed=2))
    first, second = str(uuid.uuid4()), str(uuid.uuid4())

    with comfy.follow(first) as follower:
        await comfy.submit(first, sampled(steps=100))
        await comfy.submit(second, sampled(seed=2))
        await hear(follower, Progress)
        assert [await comfy.state(i) for i in (first, second)] == [Running(), Queued(0)]
        await comfy.cancel(second)
        await comfy.cancel(first)
        await hear(follower, Interrupted)
        await hear(follower, Ended)

    assert (await comfy.state(first)).history.status == "interrupted"
    assert await comfy.state(second) == Absent()
    await comfy.cancel(first)
    await comfy.cancel(second)


async def test_slow_consumer(embedded, connect):
    """Who does not listen for a whole run stalls nobody and still hears its end."""
    comfy = await connect(await embedded())
    slow, quick = str(uuid.uuid4()), str(uuid.uuid4())

    with comfy.follow(slow) as idle, comfy.follow(quick) as follower:
        await comfy.submit(slow, sampled(steps=200))
        await comfy.submit(quick, sampled(seed=2))
        await hear(follower, Ended)
        heard = []
        while (event := await idle.next(0.1)) is not None:
            heard.append(event)

    assert heard[-2:] == [Succeeded(), Ended()]
    assert [e.value for e in heard if isinstance(e, Progress) and e.node == "3"] == [
        200
    ]


async def test_restarted_engine(tmp_path, unused_port):
    """An engine that dies is told, is absent, comes back, and has forgotten all."""
    settings = EngineSettings(data=tmp_path, port=unused_port, speed=2)
    comfy = Comfy(f"http://127.0.0.1:{unused_port}")
    prompt_id = str(uuid.uuid4())
    await comfy.start()
    try:
        async with serve(settings):
            await comfy.wait_until_ready(10)
            await comfy.submit(prompt_id, sampled(steps=100))
            with comfy.follow(prompt_id) as follower:
                await hear(follower, Progress)
        with comfy.follow("another") as follower:
            assert await follower.next(5) == SocketLost()
        with pytest.raises(EngineUnreachable) as refused:
            await comfy.submit("x", {})
        reachable = comfy.reachable
        async with serve(settings):
            await comfy.wait_until_ready(10)
            state = await comfy.state(prompt_id)
            await assert_hears(comfy)
    finally:
        await comfy.aclose()

    assert not refused.value.maybe_sent
    assert not reachable
    assert state == Absent()


async def test_nobody_there(unused_port):
    """Without an engine each call says so, and that nothing was sent."""
    comfy = Comfy(f"http://127.0.0.1:{unused_port}")
    await comfy.start()
    try:
        with pytest.raises(EngineUnreachable):
            await comfy.wait_until_ready(0.3)
        with pytest.raises(EngineUnreachable) as caught:
            await comfy.state("x")
    finally:
        await comfy.aclose()

    assert not caught.value.maybe_sent
    assert not comfy.reachable


async def test_not_started():
    """A client that was not started says so."""
    with pytest.raises(EngineUnreachable):
        await Comfy("http://127.0.0.1:1").stats()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n{", None])
async def test_maybe_sent(answer):
    """When the answer is lost, half or late, the request may have been obeyed."""

    async def swallow(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()  # says nothing until the client gives up
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        comfy = Comfy(f"http://127.0.0.1:{port}", answer_s=0.2)
        await comfy.start()
        try:
            with pytest.raises(EngineUnreachable) as caught:
                await comfy.submit("x", {})
        finally:
            await comfy.aclose()

    assert caught.value.maybe_sent


async def test_half_open():
    """A socket that answers no ping is dropped, and another is opened."""
    opened = []

    async def black_hole(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "GET /ws" not in head:
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            )
        else:
            opened.append(head.split("clientId=")[1].split()[0])
            writer.write(upgraded(head))
            await reader.read()  # reads pings, answers none
        writer.close()

    async with await asyncio.start_server(black_hole, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        comfy = Comfy(f"http://127.0.0.1:{port}", silence_s=0.15)
        await comfy.start()
        try:
            async with asyncio.timeout(10):
                while len(opened) < 2:
                    await asyncio.sleep(0.01)
        finally:
            await comfy.aclose()

    assert len(set(opened)) == len(opened)


def upgraded(head):
    """Accept a WebSocket by hand (RFC 6455)."""
    key = next(
        line.split(": ")[1]
        for line in head.splitlines()
        if line.lower().startswith("sec-websocket-key")
    )
    magic = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


async def test_reserved_once(embedded, connect):
    """A prompt has one follower."""
    comfy = await connect(await embedded())

    with comfy.follow("p"), pytest.raises(ValueError, match="followed already"):
        comfy.follow("p").__enter__()
    with comfy.follow("p"):
        pass

"""Who hears what, and what a socket that comes or goes changes."""

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit

import aiohttp
import pytest

from common.engine import sockets


async def test_frames_go_to_the_client_that_asked(engine, connection, workflow):
    """A prompt's frames go to its client; the length of the queue goes to all."""
    async with connection(engine, "a") as a, connection(engine, "b") as b:
        await a.run(workflow())
        frames = [await b.next() for _ in range(3)]

    counts = [f["data"]["status"]["exec_info"]["queue_remaining"] for f in frames]
    assert [frame["type"] for frame in frames] == ["status"] * 3
    assert counts == [1, 1, 0]


async def test_a_prompt_without_a_client(engine, client, workflow):
    """Without a client, progress and previews go to all, and the rest to nobody."""
    async with client.http.post("/prompt", json={"prompt": workflow()}) as answer:
        prompt_id = (await answer.json())["prompt_id"]
    frames = [await client.next()]
    while frames[-1].get("data", {}).get("status", {}).get("exec_info") != {
        "queue_remaining": 0
    }:
        frames.append(await client.next())

    kinds = {frame.get("type", "preview") for frame in frames}
    assert kinds == {"status", "progress_state", "progress", "preview"}
    assert await client.entry(prompt_id) is not None


async def test_a_client_that_is_away(engine, client, connection, workflow):
    """Nothing is kept for a client that is not there; the history knows the end."""
    await client.submit(workflow(), client_id="away")
    await client.run(workflow(changes={"3": {"seed": 2}}))

    async with connection(engine, "away") as late:
        with pytest.raises(TimeoutError):
            await late.ws.receive(timeout=0.1)
    assert len(await client.get("/history")) == 2


async def test_coming_back(engine, connection, workflow):
    """Who comes back is told the queue and the node that runs, then what happens."""
    async with connection(engine, "a") as first:
        await first.break_(hang_at_node="KSampler")
        await first.submit(workflow())
        await first.until("executing", node="3")
    async with connection(engine, "a") as second:
        node = await second.next()
        await second.say("/interrupt")
        frames = await second.until("executing", node=None)

    assert node == {"type": "executing", "data": {"node": "3"}}
    assert frames[0]["type"] == "execution_interrupted"


@pytest.mark.parametrize("deaf", [False, True], ids=["by default", "as in ComfyUI"])
async def test_coming_back_too_early(engine, client, connection, workflow, deaf):
    """A second socket takes over; only a fault makes it deaf when the first leaves."""
    await client.break_(deaf_after_reconnect=deaf)
    async with AsyncExitStack() as stack:
        async with connection(engine, "a"):
            second = await stack.enter_async_context(connection(engine, "a"))
        await client.submit(workflow(), client_id="a")
        await client.run(workflow(changes={"3": {"seed": 2}}))
        heard = True
        try:
            await second.ws.receive(timeout=0.2 if deaf else 60)
        except TimeoutError:
            heard = False

    assert heard is not deaf


async def test_two_sockets_of_one_client(engine, client, connection, workflow):
    """While both are open, the newer socket of a client hears everything alone."""
    async with connection(engine, "a") as old, connection(engine, "a") as new:
        await new.run(workflow())
        await client.run(workflow())

        with pytest.raises(TimeoutError):
            await old.ws.receive(timeout=0.1)


async def open_slow_socket(engine):
    """Open a socket that never reads more than the answer to its handshake."""
    url = urlsplit(engine.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=1024)
    writer.write(
        b"GET /ws?clientId=slow HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


#: More than the buffers between two processes hold, in one frame.
HUGE = json.dumps({"type": "huge", "data": {"fill": "x" * 300_000}})


async def test_a_client_that_does_not_read(engine, client, monkeypatch):
    """It loses its connection; the others miss nothing."""
    monkeypatch.setattr(sockets, "FRAMES_WAITING", 20)
    reader, writer = await open_slow_socket(engine)

    for _ in range(120):
        engine.sockets.post(HUGE, None)
        assert (await client.next())["type"] == "huge"

    async with asyncio.timeout(30):
        with suppress(ConnectionError):
            while await reader.read(1 << 20):
                pass  # what had been sent before the cut
    writer.close()


async def test_a_client_that_stops_everybody(engine, client):
    """With the fault, one client that does not read stops the frames of all."""
    await client.break_(slow_reader_stalls=True)
    _, writer = await open_slow_socket(engine)

    heard = 0
    with suppress(TimeoutError):
        for _ in range(120):
            engine.sockets.post(HUGE, None)
            await client.ws.receive(timeout=0.5)
            heard += 1
    writer.transport.abort()

    assert heard < 120
    assert (await client.next())["type"] == "huge"


async def test_previews_are_dropped_first(engine, client, monkeypatch):
    """A client that is behind misses previews, and no other frame."""
    monkeypatch.setattr(sockets, "PREVIEWS_WAITING", 1)

    for number in range(5):
        engine.sockets.post(json.dumps({"type": "n", "data": {"n": number}}), "me")
        engine.sockets.post(sockets.Preview(b"jpeg"), "me")

    assert [(await client.next())["data"]["n"] for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_flags_belong_to_a_connection(engine, connection, workflow):
    """Previews carry metadata where the connection asked for it, and only there."""
    flags = {"supports_preview_metadata": True}
    kinds = []
    for asked in (flags, None):
        async with connection(engine, flags=asked) as client:
            graph = workflow(changes={"3": {"seed": len(kinds)}})
            frames = await client.run(graph)
            kinds.append({f["preview"] for f in frames if "preview" in f})
            jpegs = [f["jpeg"][:2] for f in frames if "preview" in f]

    assert kinds == [{4}, {1}]
    assert jpegs == [b"\xff\xd8"] * 2


async def test_a_ping_is_answered(client):
    """The engine answers a client's ping, as a heartbeat needs."""
    await client.ws.ping(b"hello")

    with pytest.raises(TimeoutError):
        await client.ws.receive(timeout=0.1)
    assert not client.ws.closed


async def test_an_unnamed_client_is_given_a_name(engine):
    """Without a clientId the engine chooses one and says it."""
    async with (
        aiohttp.ClientSession(engine.url) as session,
        session.ws_connect("/ws") as ws,
    ):
        hello = await ws.receive_json()

    assert len(hello["data"]["sid"]) == 32

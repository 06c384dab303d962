"""Where the engine is, and who we say we are."""

import asyncio
import base64

import pytest

from common.comfy import Comfy, EngineUnreachable


async def test_a_login_is_sent_and_not_shown():
    """The name and password of an address go to the engine, and to nobody else."""
    heads = []

    async def keep(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(
            b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        writer.close()

    async with await asyncio.start_server(keep, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        comfy = Comfy(f"http://joe:canary%40@127.0.0.1:{port}/prefix/")
        await comfy.start()
        try:
            with pytest.raises(EngineUnreachable):
                await comfy.wait_until_ready(0.3)
            with pytest.raises(EngineUnreachable):
                await comfy.submit("x", {})
        finally:
            await comfy.aclose()

    login = base64.b64encode(b"joe:canary@").decode()
    assert comfy.url == f"http://127.0.0.1:{port}/prefix"
    assert {head.split()[1].split("?")[0] for head in heads} >= {"/prefix/prompt"}
    assert all(f"Authorization: Basic {login}\r\n" in head for head in heads)

"""
Plays a recording of the real ComfyUI on a real port.

A recording is a list of lines, played in order. `post` lines wait until the client
makes that request and answer it as recorded; `frame`, `binary` and `close` lines go to
the socket. `/queue` and `/history` are computed from what was played so far, in the
shape of the recorded version.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from pathlib import Path

from aiohttp import WSCloseCode, web

DATA = Path(__file__).parent / "data"
JPEG = b"\xff\xd8\xff\xe0" + bytes(16)


def recording(name: str) -> list[dict]:
    """Read tests/comfy/data/NAME.jsonl."""
    text = (DATA / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def prompt_ids(lines: list[dict]) -> list[str]:
    """Return the ids of the accepted prompts, in order."""
    bodies = [line["body"] for line in lines if line.get("post") == "/prompt"]
    return [body["prompt_id"] for body in bodies if body and "prompt_id" in body]


class Replay:
    """
    A ComfyUI that says again what a real one said.

    `seen` is what it was asked: ("POST /prompt", body).
    """

    def __init__(self, lines: list[dict], *, fork: bool = False) -> None:
        self.lines = lines
        self.fork = fork
        self.seen: list[tuple[str, object]] = []
        self.client_ids: list[str] = []
        self.histories: dict[str, object] = {}
        self.pending: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.url = ""
        self._recorded = {
            key: value
            for line in lines
            for key, value in line.get("history", {}).items()
        }
        self._posts: dict[str, asyncio.Queue] = {}
        self._sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self._socket: web.WebSocketResponse | None = None

    async def __aenter__(self) -> Replay:
        app = web.Application()
        app.router.add_get("/ws", self._ws)
        app.router.add_post("/prompt", self._gated)
        app.router.add_post("/interrupt", self._gated)
        app.router.add_post("/queue", self._delete)
        app.router.add_get("/queue", self._queue)
        app.router.add_get("/history/{id}", self._history)
        app.router.add_get("/system_stats", self._stats)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._task = asyncio.create_task(self._play())
        return self

    async def __aexit__(self, *exc) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._runner.cleanup()

    async def _play(self) -> None:
        self._socket = await self._sockets.get()
        for line in self.lines:
            if "post" in line:
                answer = await self._queue_for(line["post"]).get()
                self._note(line)
                answer.set_result(line)
            elif "frame" in line:
                self._advance(line["frame"])
                await self._socket.send_str(json.dumps(line["frame"]))
            elif "binary" in line:
                await self._socket.send_bytes(_binary(line["binary"]))
            elif "close" in line:
                await self._socket.close(code=WSCloseCode.OK)
                self._socket = await self._sockets.get()

    def _queue_for(self, path: str) -> asyncio.Queue:
        return self._posts.setdefault(path, asyncio.Queue())

    def _note(self, line: dict) -> None:
        body = line.get("body") or {}
        if "prompt_id" in body:
            self.pending[body["prompt_id"]] = body["number"]

    def _advance(self, frame: dict) -> None:
        data = frame.get("data", {})
        prompt_id = data.get("prompt_id")
        if frame["type"] == "execution_start" and prompt_id in self.pending:
            self.running = {prompt_id: self.pending.pop(prompt_id)}
        if frame["type"] == "executing" and data.get("node", "") is None:
            self.running = {}
            if prompt_id in self._recorded:
                self.histories[prompt_id] = self._recorded[prompt_id]

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.client_ids.append(request.query["clientId"])
        await self._sockets.put(socket)
        async for message in socket:
            self.seen.append(("WS", json.loads(message.data)))
        return socket

    async def _gated(self, request: web.Request) -> web.Response:
        self.seen.append((f"POST {request.path}", await request.json()))
        answer = asyncio.get_running_loop().create_future()
        await self._queue_for(request.path).put(answer)
        line = await answer
        if line.get("body") is None:
            return web.Response(status=line.get("status", 200))
        return web.json_response(line["body"], status=line["status"])

    async def _delete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.seen.append(("POST /queue", body))
        for prompt_id in body["delete"]:
            self.pending.pop(prompt_id, None)
        return web.Response()

    async def _queue(self, request: web.Request) -> web.Response:
        self.seen.append(("GET /queue", None))

        def item(prompt_id: str, number: int) -> object:
            if self.fork:
                return {"priority": number, "prompt_id": prompt_id, "prompt": {}}
            return [number, prompt_id, {}, {}, []]

        return web.json_response(
            {
                "queue_running": [item(*i) for i in self.running.items()],
                "queue_pending": [item(*i) for i in reversed(self.pending.items())],
            }
        )

    async def _history(self, request: web.Request) -> web.Response:
        self.seen.append(("GET /history", None))
        prompt_id = request.match_info["id"]
        entry = self.histories.get(prompt_id)
        return web.json_response({} if entry is None else {prompt_id: entry})

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "0.3.64"}})


def _binary(line: dict) -> bytes:
    if line["type"] == 1:
        return struct.pack(">II", 1, 1) + JPEG
    metadata = json.dumps(line["metadata"]).encode()
    return struct.pack(">II", 4, len(metadata)) + metadata + JPEG

"""An engine on a free port, and a client that keeps every frame."""

import asyncio
import json
import struct
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path

import aiohttp
import pytest

from common.engine import EngineSettings, serve

DATA = Path(__file__).with_name("data")

#: No frame of these tiny films takes longer, on however busy a machine.
DEADLINE_S = 60


class Client:
    """One HTTP session and one socket, as one ComfyUI user has them."""

    def __init__(self, session, ws, client_id):
        self.http = session
        self.ws = ws
        self.client_id = client_id

    async def post(self, graph, **fields):
        """Send a graph; return status and body."""
        body = {"prompt": graph, "client_id": self.client_id} | fields
        async with self.http.post("/prompt", json=body) as answer:
            return answer.status, await answer.json()

    async def submit(self, graph, **fields):
        """Send a graph that must be accepted; return its id."""
        status, body = await self.post(graph, **fields)
        assert status == 200, body
        return body["prompt_id"]

    async def next(self):
        """Return the next frame: JSON, or {"preview": type, …}."""
        async with asyncio.timeout(DEADLINE_S):
            message = await self.ws.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return json.loads(message.data)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        kind, length = struct.unpack(">II", message.data[:8])
        if kind == 1:
            return {"preview": 1, "jpeg": message.data[8:]}
        about = json.loads(message.data[8 : 8 + length])
        return {"preview": 4, "metadata": about, "jpeg": message.data[8 + length :]}

    async def until(self, kind, **data):
        """Return all frames up to the first of a kind with this data."""
        frames = []
        while True:
            frames.append(await self.next())
            said = frames[-1].get("data", {})
            if frames[-1].get("type") == kind and data.items() <= said.items():
                return frames

    async def run(self, graph, **fields):
        """Send a graph and return all frames up to its end."""
        prompt_id = await self.submit(graph, **fields)
        return await self.until("executing", node=None, prompt_id=prompt_id)

    async def get(self, path, **params):
        """Return the JSON of a GET."""
        async with self.http.get(path, params=params) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def entry(self, prompt_id):
        """Return a prompt's entry in the history, or None."""
        return (await self.get(f"/history/{prompt_id}")).get(prompt_id)

    async def say(self, path, **body):
        """POST JSON where the answer's body says nothing."""
        async with self.http.post(path, json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def break_(self, **faults):
        """Switch faults on."""
        await self.say("/embedded/faults", **faults)

    async def log(self):
        """Return the states of all prompts that were ever accepted, in order."""
        accepted = await self.get("/embedded/log")
        return [(item["prompt_id"], item["state"]) for item in accepted]


@asynccontextmanager
async def connect(engine, client_id="me", flags=None):
    """Open a session and a socket that has said hello."""
    async with (
        aiohttp.ClientSession(engine.url) as session,
        session.ws_connect(f"/ws?clientId={client_id}", max_msg_size=0) as ws,
    ):
        client = Client(session, ws, client_id)
        if flags is not None:
            await ws.send_json({"type": "feature_flags", "data": flags})
        first = await client.next()
        assert first["data"]["sid"] == client_id
        if flags is not None:
            await client.until("feature_flags")
        yield client


@pytest.fixture
def connection():
    """Return `connect`, for tests that need more than one client."""
    return connect


@pytest.fixture
async def engine(tmp_path):
    """Serve an engine that pretends nothing and may be broken."""
    settings = EngineSettings(data=tmp_path, port=0, speed=0, faults=True)
    async with serve(settings) as engine:
        yield engine


@pytest.fixture
async def client(engine):
    """Connect to the engine."""
    async with connect(engine) as client:
        yield client


@pytest.fixture
def workflow():
    """Return a function that loads a workflow with changes: {"3": {"seed": 1}}."""

    def load(name="fastwan_t2v", changes=None):
        graph = deepcopy(json.loads((DATA / f"{name}.json").read_text("utf-8")))
        for node_id, inputs in (changes or {}).items():
            graph[node_id]["inputs"].update(inputs)
        return graph

    return load


@pytest.fixture
def recorded():
    """Return a function that loads what was recorded from ComfyUI."""
    return lambda name: json.loads((DATA / f"{name}.json").read_text("utf-8"))

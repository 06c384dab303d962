"""What a test breaks is broken, as often as it asked for."""

import asyncio
import time

import aiohttp
import av
import pytest

from common.engine import EngineSettings, serve
from common.engine.faults import Faults


def kinds(frames):
    return [frame.get("type", "preview") for frame in frames]


def files(engine):
    return sorted(engine.settings.folder("output").rglob("*.mp4"))


async def test_only_where_asked_for(tmp_path):
    """An engine that was not started with faults has no such routes."""
    async with (
        serve(EngineSettings(data=tmp_path, port=0)) as engine,
        aiohttp.ClientSession(engine.url) as session,
        session.post("/embedded/faults", json={}) as answer,
        session.get("/embedded/log") as log,
    ):
        assert (answer.status, log.status) == (404, 404)


async def test_unknown_faults_are_refused(client):
    """A misspelt fault is an error, not a test that proves nothing."""
    async with client.http.post("/embedded/faults", json={"hang": 1}) as answer:
        assert answer.status == 400
        assert "hang" in (await answer.json())["error"]


def test_times():
    """A fault with `times` works that often, one without until the reset."""
    faults = Faults()
    faults.set({"oom_at_node": "3", "times": 2})
    faults.set({"half_file": True})

    assert [faults.take("oom_at_node", "4")] == [None]
    assert [bool(faults.take("oom_at_node", "3")) for _ in range(3)] == [1, 1, 0]
    assert [bool(faults.take("half_file")) for _ in range(3)] == [1, 1, 1]
    faults.set({"reset": True})
    assert faults.take("half_file") is None


@pytest.mark.parametrize("place", ["KSampler", "3"], ids=["by class", "by id"])
async def test_out_of_memory(client, workflow, place):
    """CUDA's error ends the prompt, and the next one runs."""
    await client.break_(oom_at_node=place, times=1)

    frames = await client.run(workflow())
    again = await client.run(workflow())

    [error] = [f["data"] for f in frames if f.get("type") == "execution_error"]
    entry = await client.entry(error["prompt_id"])
    assert error["exception_type"] == "torch.OutOfMemoryError"
    assert error["node_type"] == "KSampler"
    assert error["node_id"] == "3"
    assert entry["status"]["messages"][-1][0] == "execution_error"
    assert "execution_success" in kinds(again)


async def test_an_error_of_ones_own(client, workflow):
    """A node raises what the test says."""
    await client.break_(
        error_at_node={"node": "VAEDecode", "type": "OSError", "message": "No space"}
    )

    frames = await client.run(workflow())

    [error] = [f["data"] for f in frames if f.get("type") == "execution_error"]
    assert error["exception_type"] == "OSError"
    assert error["exception_message"] == "No space\n"
    assert isinstance(error["traceback"], list)
    assert error["current_inputs"]["vae"] == ["['39', 0]"]


async def test_a_hang_that_ignores_interrupts(client, workflow):
    """A node hangs through every interrupt until the fault is taken away."""
    await client.break_(hang_at_node="VAEDecode", ignore_interrupt=True)
    prompt_id = await client.submit(workflow())
    await client.until("executing", node="8")

    await client.say("/interrupt", prompt_id=prompt_id)
    stuck = await client.get("/queue")
    await client.break_(reset=True)
    await client.say("/interrupt")
    frames = await client.until("executing", node=None)

    assert [item[1] for item in stuck["queue_running"]] == [prompt_id]
    assert kinds(frames)[0] == "execution_interrupted"


async def test_a_half_file(engine, client, workflow):
    """The file is there, and no player opens it."""
    await client.break_(half_file=True)

    frames = await client.run(workflow())

    assert "execution_success" in kinds(frames)
    with pytest.raises(av.error.InvalidDataError), av.open(str(files(engine)[0])):
        pass


async def test_no_file(engine, client, workflow):
    """The file is reported and is not there."""
    await client.break_(no_file=True)

    frames = await client.run(workflow())

    assert "executed" in kinds(frames)
    assert files(engine) == []


async def test_no_outputs(engine, client, workflow):
    """The file is there and is not reported."""
    await client.break_(no_outputs=True, times=1)

    frames = await client.run(workflow())

    entry = await client.entry(frames[-1]["data"]["prompt_id"])
    assert "executed" not in kinds(frames)
    assert entry["status"]["completed"] is True
    assert entry["outputs"] == {}
    assert len(files(engine)) == 1


async def test_node_errors_with_200(client, workflow):
    """POST /prompt says 200 and node_errors at once."""
    await client.break_(node_errors_200=True, times=1)

    status, body = await client.post(workflow())
    await client.until("executing", node=None)

    assert status == 200
    assert list(body["node_errors"]) == ["58"]


async def test_history_comes_late(client, workflow, monkeypatch):
    """The entry is there only after the delay."""
    await client.break_(delay_history_s=1000)
    now = time.monotonic()
    frames = await client.run(workflow())
    prompt_id = frames[-1]["data"]["prompt_id"]
    early = await client.entry(prompt_id)

    monkeypatch.setattr("common.engine.promptqueue.time.monotonic", lambda: now + 2000)
    late = await client.entry(prompt_id)
    monkeypatch.undo()

    assert early is None
    assert late is not None


async def test_a_zombie(client, workflow):
    """Prompts are accepted and wait, until the fault is taken away."""
    await client.break_(zombie=True)
    prompt_id = await client.submit(workflow())
    queue = await client.get("/queue")
    await client.break_(reset=True)
    await client.until("executing", node=None, prompt_id=prompt_id)

    assert queue["queue_running"] == []
    assert [item[1] for item in queue["queue_pending"]] == [prompt_id]


async def test_amnesia(client, workflow):
    """Everything is forgotten, and what ran ends without a word."""
    await client.run(workflow(), prompt_id="old")
    await client.break_(hang_at_node="VAEDecode", times=1)
    changed = workflow(changes={"3": {"seed": 2}})
    await client.submit(changed, prompt_id="running")
    await client.submit(workflow(), prompt_id="waiting")
    await client.until("executing", node="8")

    await client.break_(forget_prompt=True)
    frames = await client.run(workflow(), prompt_id="new")

    ids = {f["data"].get("prompt_id") for f in frames if "data" in f}
    assert ids <= {None, "new"}
    assert list(await client.get("/history")) == ["new"]
    assert await client.log() == [
        ("old", "success"),
        ("running", "deleted"),
        ("waiting", "deleted"),
        ("new", "success"),
    ]


@pytest.mark.parametrize(
    ("unwanted", "missing"),
    [
        (["executed"], {"executed"}),
        (["preview", "progress"], {"preview", "progress"}),
    ],
    ids=["executed", "progress"],
)
async def test_dropped_frames(client, workflow, unwanted, missing):
    """Frames of these kinds are lost, the others are not."""
    await client.break_(drop_frames=unwanted)

    frames = await client.run(workflow())

    assert not missing & set(kinds(frames))
    assert {"execution_start", "execution_success", "executing"} <= set(kinds(frames))


async def test_the_end_is_dropped(client, workflow):
    """The last frame of a run can be lost alone."""
    await client.break_(drop_frames=["executing_null"])
    await client.submit(workflow())
    await client.until("execution_success")
    await client.submit(workflow())
    frames = await client.until("execution_start")

    assert "status" in kinds(frames)
    assert "executing" not in kinds(frames)


@pytest.mark.parametrize("fault", [{"drop_frames": "all"}, {"mute_socket": True}])
async def test_silence(client, workflow, fault):
    """Nothing is said at all, and the prompt runs."""
    await client.break_(**fault)
    prompt_id = await client.submit(workflow())
    async with asyncio.timeout(60):
        while await client.entry(prompt_id) is None:
            await asyncio.sleep(0.01)

    with pytest.raises(TimeoutError):
        await client.ws.receive(timeout=0.1)


async def test_cut_sockets(engine, client, connection, workflow):
    """Every socket is cut at once; the engine goes on."""
    await client.break_(close_sockets=True)

    message = await client.ws.receive(timeout=30)
    assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
    assert client.ws.close_code == 1006
    async with connection(engine, "b") as other:
        assert "execution_success" in kinds(await other.run(workflow()))

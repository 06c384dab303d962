"""
What the client does with a living engine: the embedded one, and a real ComfyUI.

WAN_TEST_COMFYUI=http://127.0.0.1:8188 pytest -m comfyui runs the same tests there. They
need no model.
"""

import asyncio
import os
import uuid

import pytest
from PIL import Image

from common.comfy import (
    Absent,
    Finished,
    OutputMissing,
    OutputTooLarge,
    WorkflowRejected,
)
from common.events import (
    Cached,
    Ended,
    EngineFile,
    Executed,
    Failed,
    Started,
    Succeeded,
)
from tests.comfy.graphs import still


@pytest.fixture(params=["embedded", pytest.param("comfyui", marks=pytest.mark.comfyui)])
async def comfy(request, embedded, connect):
    """A client of each engine there is."""
    url = os.environ.get("WAN_TEST_COMFYUI")
    if request.param == "embedded":
        url = await embedded()
    elif not url:
        pytest.skip("WAN_TEST_COMFYUI names no ComfyUI")
    return await connect(url)


@pytest.fixture
async def image(comfy, tmp_path):
    """An uploaded image that no earlier run has seen."""
    path = tmp_path / "in.png"
    Image.new("RGB", (64, 64), tuple(uuid.uuid4().bytes[:3])).save(path)
    return await comfy.upload(path, "in.png", f"tests/{uuid.uuid4()}")


async def run(comfy, graph, until=(Ended,)):
    """Run a graph and return its id and its events."""
    prompt_id, events = str(uuid.uuid4()), []
    with comfy.follow(prompt_id) as follower:
        await comfy.submit(prompt_id, graph)
        while not events or not isinstance(events[-1], until):
            event = await follower.next(60)
            assert event is not None, f"silence after {events}"
            events.append(event)
    return prompt_id, events


async def test_success(comfy, image, tmp_path):
    """Image in, video out: events, then history, then the file."""
    prompt_id, events = await run(comfy, still(image, f"video/{uuid.uuid4()}"))
    state = await comfy.state(prompt_id)
    [file] = state.history.files_by_node["3"]
    await comfy.download(file, tmp_path / "out.mp4", max_bytes=10**7)

    assert events[0] == Started()
    assert isinstance(events[1], Cached)
    assert events[-2:] == [Succeeded(), Ended()]
    assert Executed("3", (file,)) in events
    assert state == Finished(state.history)
    assert (tmp_path / "out.mp4").read_bytes()[4:8] == b"ftyp"


async def test_cached(comfy, image):
    """The same graph again gives the same file, and no node runs."""
    graph = still(image, f"video/{uuid.uuid4()}")

    first, _ = await run(comfy, graph)
    second, events = await run(comfy, graph)

    assert events[1].nodes == {"1", "2", "3"}
    histories = [(await comfy.state(i)).history for i in (first, second)]
    assert histories[0].files_by_node == histories[1].files_by_node


async def test_refused(comfy, image):
    """A wrong value is refused by node and input; nothing is queued."""
    graph = still(image)
    graph["2"]["inputs"]["fps"] = 0.0
    prompt_id = str(uuid.uuid4())

    with pytest.raises(WorkflowRejected) as caught:
        await comfy.submit(prompt_id, graph)

    [error] = caught.value.errors
    assert (error.node_id, error.input) == ("2", "fps")
    assert await comfy.state(prompt_id) == Absent()


async def test_unknown_node(comfy, image):
    """A node that the engine lacks is named."""
    graph = still(image)
    graph["2"]["class_type"] = "NoSuchNode"

    with pytest.raises(WorkflowRejected) as caught:
        await comfy.submit(str(uuid.uuid4()), graph)

    assert [e.class_type for e in caught.value.errors] == ["NoSuchNode"]


async def test_failure(comfy, tmp_path):
    """A node that raises is told by event and in history."""
    path = tmp_path / "in.png"
    path.write_bytes(b"no image " + uuid.uuid4().bytes)
    name = await comfy.upload(path, "in.png", f"tests/{uuid.uuid4()}")

    prompt_id, events = await run(comfy, still(name))
    state = await comfy.state(prompt_id)

    [failed] = [event for event in events if isinstance(event, Failed)]
    assert failed.node_id == "1"
    assert state.history.status == "error"
    assert state.history.error.message


async def test_cancel_of_nothing(comfy):
    """Canceling what is unknown or over is harmless."""
    await comfy.cancel(str(uuid.uuid4()))

    assert await comfy.queue_sizes() == (0, 0)


async def test_files(comfy, tmp_path):
    """Of an absent or too large output nothing is left on our disk."""
    path = tmp_path / "in.png"
    Image.new("RGB", (64, 64)).save(path)
    name = await comfy.upload(path, "in.png", f"tests/{uuid.uuid4()}")
    subfolder, _, filename = name.rpartition("/")
    dest = tmp_path / "out"

    with pytest.raises(OutputMissing):
        await comfy.download(EngineFile("absent.mp4"), dest, max_bytes=9)
    with pytest.raises(OutputTooLarge):
        await comfy.download(
            EngineFile(filename, subfolder, "input"), dest, max_bytes=9
        )
    assert not dest.exists()

    await comfy.download(EngineFile(filename, subfolder, "input"), dest, max_bytes=9999)
    assert dest.read_bytes() == path.read_bytes()


async def test_a_download_that_is_canceled_leaves_nothing(comfy, tmp_path):
    """At whatever moment: no file is there, and none is open."""
    path = tmp_path / "in.png"
    Image.effect_noise((512, 512), 64).save(path)
    name = await comfy.upload(path, "in.png", f"tests/{uuid.uuid4()}")
    subfolder, _, filename = name.rpartition("/")
    file = EngineFile(filename, subfolder, "input")
    dest = tmp_path / "out"

    for moment in range(40):
        task = asyncio.create_task(comfy.download(file, dest, max_bytes=10**7))
        for _ in range(moment):
            await asyncio.sleep(0.0005)
            if dest.exists():
                break
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            assert not dest.exists()
    await asyncio.sleep(0.05)  # what a thread may still do
    assert not dest.exists() or not task.cancelled()


async def test_upload_names(comfy, tmp_path):
    """Other bytes under a used name are stored under another, which we are told."""
    folder, names = f"tests/{uuid.uuid4()}", []
    for color in ("red", "blue", "red"):
        path = tmp_path / "in.png"
        Image.new("RGB", (8, 8), color).save(path)
        names.append(await comfy.upload(path, "in.png", folder))

    assert names[0] == names[2] == f"{folder}/in.png"
    assert names[1] != names[0]


async def test_choices(comfy):
    """Drop-downs are read in both of their shapes."""
    assert "euler" in await comfy.choices("KSampler", "sampler_name")
    assert "mp4" in await comfy.choices("SaveVideo", "format")
    assert await comfy.choices("KSampler", "nope") == ()
    assert await comfy.choices("NoSuchNode", "x") == ()


async def test_about(comfy):
    """The engine says who it is."""
    stats = await comfy.stats()
    await comfy.free()

    assert stats["system"]
    assert comfy.info.version
    assert comfy.info.devices
    assert comfy.reachable
    assert comfy.socket_alive

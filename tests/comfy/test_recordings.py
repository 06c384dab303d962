"""The client against recordings of the real ComfyUI, of two versions."""

import pytest

from common.comfy import (
    Absent,
    EngineUnreachable,
    Queued,
    Running,
    WorkflowRejected,
)
from common.events import (
    Cached,
    EngineFile,
    Executed,
    Executing,
    Failed,
    NodeStates,
    Preview,
    Progress,
)
from tests.comfy.replay import Replay, prompt_ids, recording

BOTH = ["", "fork_"]
ALL_NODES = {"39", "55", "38", "7", "6", "37", "49", "48", "3", "8", "57", "58"}


def told(event):
    """Say an event in a word or two; None for what comes in any number."""
    match event:
        case Executing(node):
            return node
        case Executed(node, files):
            return f"{node} gave {' '.join(f.filename for f in files)}"
        case Failed(node_id, node_type):
            return f"failed in {node_type} {node_id}"
        case Progress() | NodeStates() | Preview():
            return None
    return type(event).__name__


async def story(follower, until=("Ended",)):
    """Collect what a follower is told, until the run is over."""
    lines, events = [], []
    while not lines or lines[-1] not in until:
        event = await follower.next(5)
        assert event is not None, f"silence after {lines}"
        events.append(event)
        if (line := told(event)) is not None:
            lines.append(line)
    return lines, events


@pytest.fixture
async def play(connect):
    """Return a function that starts a replay and a client of it."""
    replays = []

    async def started(name):
        lines = recording(name)
        replay = Replay(lines, fork=name.startswith("fork_"))
        await replay.__aenter__()
        replays.append(replay)
        return await connect(replay.url), replay, prompt_ids(lines)

    yield started
    for replay in replays:
        await replay.__aexit__()


@pytest.mark.parametrize("name", ["s01", "fork_s01", "s02", "fork_s02"])
async def test_success(play, name):
    """A run is told from start to end, and history is asked once for its file."""
    comfy, replay, [prompt_id] = await play(name)

    with comfy.follow(prompt_id) as follower:
        await comfy.submit(prompt_id, {})
        lines, events = await story(follower)
    asked = len(replay.seen)
    state = await comfy.state(prompt_id)

    start, cached, *ran, gave, succeeded, ended = lines
    assert [start, cached] == ["Started", "Cached"]
    assert [succeeded, ended] == ["Succeeded", "Ended"]
    assert {*ran, *events[1].nodes} == ALL_NODES
    assert gave.startswith("58 gave fastwan_")
    if replay.histories:
        assert [what for what, _ in replay.seen[asked:]] == ["GET /history"]
        assert state.history.status == "success"
        [file] = state.history.files_by_node["58"]
        assert gave == f"58 gave {file.filename}"


async def test_what_is_sent(play):
    """Our prompt id and the socket's own client id go out, and previews are asked."""
    comfy, replay, [prompt_id] = await play("s02")

    with comfy.follow(prompt_id) as follower:
        number = await comfy.submit(prompt_id, {"3": {}})
        await story(follower)

    sent = dict(replay.seen)
    assert number == 1
    assert sent["POST /prompt"] == {
        "prompt": {"3": {}},
        "client_id": replay.client_ids[0],
        "prompt_id": prompt_id,
    }
    assert sent["WS"]["data"] == {"supports_preview_metadata": True}


@pytest.mark.parametrize("name", ["s01", "s02", "fork_s02"])
async def test_previews(play, name):
    """Previews reach the prompt they belong to, with and without an id of their own."""
    comfy, _, [prompt_id] = await play(name)

    with comfy.follow(prompt_id) as follower:
        await comfy.submit(prompt_id, {})
        _, events = await story(follower)

    previews = [event for event in events if isinstance(event, Preview)]
    assert previews
    assert {p.content_type for p in previews} == {"image/jpeg"}


@pytest.mark.parametrize("version", BOTH, ids=["0.3.64", "fork 0.12.1"])
async def test_cached_rerun(play, version):
    """A fully cached run tells its old file and ends, without running a node."""
    comfy, _, ids = await play(version + "s03")

    for prompt_id in ids[:2]:
        with comfy.follow(prompt_id) as follower:
            await comfy.submit(prompt_id, {})
            lines, events = await story(follower)

    assert [line for line in lines if "gave" not in line] == [
        "Started",
        "Cached",
        "Succeeded",
        "Ended",
    ]
    assert any("58 gave fastwan_" in line for line in lines)
    [cached] = [event for event in events if isinstance(event, Cached)]
    assert "58" in cached.nodes
    state = await comfy.state(ids[1])
    assert list(state.history.files_by_node) == ["58"]


@pytest.mark.parametrize("version", BOTH, ids=["0.3.64", "fork 0.12.1"])
async def test_execution_error(play, version):
    """A node's exception is told by event and by history, and the next run works."""
    comfy, _, ids = await play(version + "s07")

    stories = []
    for prompt_id in ids:
        with comfy.follow(prompt_id) as follower:
            await comfy.submit(prompt_id, {})
            stories.append(await story(follower))
    first, second, *_, last = [await comfy.state(i) for i in ids]

    assert stories[0][0][-2:] == ["failed in Wan22ImageToVideoLatent 55", "Ended"]
    assert first.history.status == "error"
    assert "expanded size of the tensor" in first.history.error.message
    assert "Could not detect model type" in second.history.error.message
    assert (first.history.error.node_id == "55") == (version == "")
    assert last.history.status == "success"
    assert stories[-1][0][-2:] == ["Succeeded", "Ended"]


@pytest.mark.parametrize(
    "name", ["s08", "fork_s08", "s11"], ids=["sampler", "fork", "decode"]
)
async def test_interrupt(play, name):
    """Canceling a running prompt interrupts it, and it reads interrupted, not error."""
    comfy, replay, [prompt_id] = await play(name)

    with comfy.follow(prompt_id) as follower:
        await comfy.submit(prompt_id, {})
        while not isinstance(await follower.next(5), Progress | Executing):
            pass
        while await comfy.state(prompt_id) != Running():
            pass
        await comfy.cancel(prompt_id)
        lines, _ = await story(follower)
    state = await comfy.state(prompt_id)

    assert lines[-2:] == ["Interrupted", "Ended"]
    assert state.history.status == "interrupted"
    assert state.history.error is None
    assert ("POST /interrupt", {"prompt_id": prompt_id}) in replay.seen


@pytest.mark.parametrize("version", BOTH, ids=["0.3.64", "fork 0.12.1"])
async def test_interrupt_one_of_two(play, version):
    """Interrupting the running prompt leaves the queued one to run next."""
    comfy, _, [first, second] = await play(version + "s09")

    with comfy.follow(first) as one, comfy.follow(second) as two:
        await comfy.submit(first, {})
        await comfy.submit(second, {})
        while not isinstance(await one.next(5), Progress):
            pass
        assert await comfy.state(second) == Queued(0)
        await comfy.cancel(first)
        stopped, _ = await story(one)
        ran, _ = await story(two)

    assert stopped[-2:] == ["Interrupted", "Ended"]
    assert ran[-2:] == ["Succeeded", "Ended"]


@pytest.mark.parametrize("version", BOTH, ids=["0.3.64", "fork 0.12.1"])
async def test_cancel_queued(play, version):
    """A queued prompt is deleted without an interrupt, and is then absent."""
    comfy, replay, [running, second, third] = await play(version + "s12")

    for prompt_id in (running, second, third):
        await comfy.submit(prompt_id, {})
    while await comfy.state(running) != Running():
        pass
    places = [await comfy.state(i) for i in (running, second, third)]
    await comfy.cancel(second)
    await comfy.cancel(second)

    assert places == [Running(), Queued(0), Queued(1)]
    assert await comfy.state(second) == Absent()
    assert await comfy.state(third) == Queued(0)
    assert await comfy.queue_sizes() == (1, 1)
    assert "POST /interrupt" not in dict(replay.seen)


@pytest.mark.parametrize("version", BOTH, ids=["0.3.64", "fork 0.12.1"])
async def test_server_closes_in_mid_run(play, version):
    """After a close by the server the same id hears the rest, and the loss is told."""
    comfy, replay, [prompt_id] = await play(version + "s14")

    with comfy.follow(prompt_id) as follower:
        await comfy.submit(prompt_id, {})
        lines, _ = await story(follower)

    assert lines[-2:] == ["Succeeded", "Ended"]
    assert lines.count("SocketLost") == 1
    assert len(replay.client_ids) == 2
    assert len(set(replay.client_ids)) == 1
    # The server greets with the running node, without saying of which prompt.
    assert lines[lines.index("SocketLost") + 1] == "8"


@pytest.mark.parametrize("version", BOTH, ids=["0.3.64", "fork 0.12.1"])
async def test_outputs_of_a_failed_run(play, version):
    """A failed run may still list files; a run accepted in part counts as refused."""
    comfy, replay, ids = await play(version + "s25")

    for prompt_id in ids[:2]:
        with comfy.follow(prompt_id) as follower:
            await comfy.submit(prompt_id, {})
            await story(follower)
    state = await comfy.state(ids[1])
    with pytest.raises(WorkflowRejected) as caught:
        await comfy.submit(ids[2], {})

    assert state.history.status == "error"
    assert [type(f) for f in state.history.files_by_node["58"]] == [EngineFile]
    assert [error.kind for error in caught.value.errors] == ["return_type_mismatch"]
    assert ("POST /queue", {"delete": [ids[2]]}) in replay.seen


@pytest.mark.parametrize("name", ["s04", "fork_s04", "s06", "fork_s06"])
async def test_refusals(play, name):
    """Every recorded 400 is WorkflowRejected; after a 500 one must look again."""
    comfy, _, _ = await play(name)

    for answer in (line for line in recording(name) if "post" in line):
        if answer["status"] == 500:
            with pytest.raises(EngineUnreachable) as unclear:
                await comfy.submit("x", {})
            assert unclear.value.maybe_sent
            continue
        with pytest.raises(WorkflowRejected) as caught:
            await comfy.submit("x", {})
        for error in caught.value.errors:
            assert error.message
            assert "/srv" not in error.message + error.details

"""The engine says what ComfyUI was recorded to say, in the same order."""

from itertools import pairwise

import pytest
from PIL import Image


def beat(frame):
    """Return what a frame says, without ids, times and file numbers."""
    if "preview" in frame:
        return "preview", frame["preview"], frame.get("metadata", {}).get("node_id")
    data = frame["data"]
    match frame["type"]:
        case "status":
            return "status", data["status"]["exec_info"]["queue_remaining"]
        case "progress_state":
            nodes = data["nodes"].items()
            states = [(n, s["state"], s["value"], s["max"]) for n, s in nodes]
            return "progress_state", *states
        case "execution_cached":
            return "execution_cached", *data["nodes"]
        case "executed":
            shown = data["output"]
            return "executed", data["node"], *shown, *shown["images"][0]
        case "progress":
            return "progress", data["node"], data["value"], data["max"]
        case "execution_error" | "execution_interrupted":
            end = data["node_id"], data["node_type"], sorted(data["executed"])
            return frame["type"], *end, sorted(data.keys() - {"timestamp"})
    return frame["type"], data.get("node"), data.get("display_node")


def beats(frames):
    """
    Return the beats of a run.

    A preview comes just before or just after its `progress`, whichever ComfyUI's
    scheduler chose, so the two count as one moment.
    """
    said = [beat(frame) for frame in frames]
    for i, (one, other) in enumerate(pairwise(said)):
        if {one[0], other[0]} == {"preview", "progress"} and one[0] == "preview":
            said[i : i + 2] = [other, one]
    return said


@pytest.fixture
def steps(workflow):
    """Return the small workflow with as many steps, and another seed if told."""
    return lambda steps, seed=1: workflow(changes={"3": {"steps": steps, "seed": seed}})


async def test_a_first_run_and_one_with_metadata(engine, connection, steps, recorded):
    """A run says what ComfyUI says, with or without the preview metadata flag."""
    async with connection(engine) as client:
        first = await client.run(steps(3))
    async with connection(engine, flags={"supports_preview_metadata": True}) as client:
        second = await client.run(steps(2))

    assert beats(first) == beats(recorded("s01_success_preview")[0])
    assert beats(second) == beats(recorded("s02_success_preview_metadata_flag")[0])


async def test_the_cache(engine, client, steps, recorded):
    """Repeated, renamed and changed prompts run again what ComfyUI runs again."""
    await client.run(steps(2, seed=0))
    renamed = steps(2)
    renamed["58"]["inputs"]["filename_prefix"] = "video/other"
    other = steps(2, seed=2)
    runs = []

    for graph in (steps(2), steps(2), steps(2), renamed, other, steps(2)):
        if len(runs) == 2:
            for path in engine.settings.folder("output").rglob("*.mp4"):
                path.unlink()
        runs.append(await client.run(graph))

    files = [
        frame["data"]["output"]["images"][0]["filename"]
        for run in runs
        for frame in run
        if frame.get("type") == "executed"
    ]
    assert [beats(run) for run in runs] == [
        beats(run) for run in recorded("s03_cached_rerun")
    ]
    assert files == [
        "fastwan_00002_.mp4",
        "fastwan_00002_.mp4",
        "fastwan_00002_.mp4",  # reported, though the file is gone
        "other_00001_.mp4",
        "fastwan_00001_.mp4",  # the number is free again
        "fastwan_00002_.mp4",
    ]


async def test_two_samplers(engine, client, steps, workflow, recorded):
    """The 14B pair counts the steps of each sampler for itself."""
    Image.new("RGB", (64, 64), "teal").save(engine.settings.folder("input") / "in.png")
    await client.run(steps(2))

    frames = await client.run(workflow("wan22_i2v_14b"))

    assert beats(frames) == beats(recorded("s24_i2v14b_progress")[0])


async def test_an_interrupt(engine, client, steps, recorded):
    """An interrupted run ends like ComfyUI's, in frames and in history."""
    await client.run(steps(2, seed=0))
    await client.break_(hang_at_node="KSampler")
    prompt_id = await client.submit(steps(400))
    frames = await client.until("executing", node="3")

    await client.say("/interrupt")
    frames += await client.until("executing", node=None)

    # Ours hangs before its first step.
    step = ("progress", "3", 1, 400), ("progress_state", ("3", "running", 1, 400))
    theirs = [b for b in beats(recorded("s08_interrupt_global")[0]) if b not in step]
    entry = await client.entry(prompt_id)
    assert beats(frames) == theirs
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["completed"] is False
    assert [kind for kind, _ in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_interrupted",
    ]


async def test_two_outputs(engine, client, steps, recorded):
    """An output that fails does not take back the one that was saved."""
    loaders = steps(2, seed=0)
    loaders["39"]["inputs"]["vae_name"] = "wan_2.1_vae.safetensors"
    loaders["37"]["inputs"]["weight_dtype"] = "fp8_e4m3fn"
    await client.run(loaders)
    graph = steps(2)
    first = await client.run(graph)
    latent = {"vae": ["39", 0], "width": 64, "height": 64, "length": 1, "batch_size": 1}
    graph["70"] = {
        "class_type": "VAEDecode",
        "inputs": {"samples": ["71", 0], "vae": ["39", 0]},
    }
    graph["71"] = {"class_type": "Wan22ImageToVideoLatent", "inputs": latent}
    graph["72"] = {"class_type": "PreviewImage", "inputs": {"images": ["70", 0]}}
    await client.break_(error_at_node="70", times=1)

    failed_id = await client.submit(graph)
    failed = await client.until("executing", node=None, prompt_id=failed_id)
    graph["72"]["inputs"]["images"] = ["38", 0]
    status, answer = await client.post(graph)
    partly = await client.until("executing", node=None)

    entry = await client.entry(failed_id)
    assert [beats(run) for run in (first, failed, partly)] == [
        beats(run) for run in recorded("s25_history_outputs_after_failure")
    ]
    assert entry["status"]["status_str"] == "error"
    assert list(entry["outputs"]) == ["58"]
    assert status == 200
    assert [e["type"] for e in answer["node_errors"]["72"]["errors"]] == [
        "return_type_mismatch"
    ]
    assert answer["node_errors"]["72"]["dependent_outputs"] == ["72"]

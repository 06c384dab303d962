"""Queue, history, interrupt and the rest of the HTTP surface."""

import pytest

OUTPUT = {"filename": "fastwan_00001_.mp4", "subfolder": "video", "type": "output"}


@pytest.fixture
async def blocked(client, workflow):
    """Hang a prompt in its sampler, so that others wait; return its id."""
    await client.break_(hang_at_node="KSampler", times=1)
    prompt_id = await client.submit(workflow(), prompt_id="blocked")
    await client.until("executing", node="3")
    return prompt_id


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"client_id": "me"}, "no_prompt"),
        ([], "no_prompt"),
        ({"prompt": {}}, "prompt_no_outputs"),
        ({"prompt": {"nodes": [], "links": []}}, "invalid_prompt"),
    ],
    ids=["no prompt", "a list", "empty", "saved by the editor"],
)
async def test_bodies_that_are_no_graph(client, body, kind):
    """A body without a graph is 400, in ComfyUI's shape."""
    async with client.http.post("/prompt", json=body) as answer:
        said = await answer.json()

    assert answer.status == 400
    assert said["error"]["type"] == kind
    assert said["node_errors"] == {}


@pytest.mark.parametrize("path", ["/prompt", "/queue", "/history", "/free"])
async def test_not_json_is_500(client, path):
    """What is not JSON is answered like ComfyUI does: 500, as text."""
    async with client.http.post(path, data=b"{") as answer:
        assert answer.status == 500
        assert (await answer.text()).startswith("500 Internal Server Error")


async def test_a_bad_graph_is_refused(client, workflow):
    """POST /prompt answers 400 and keeps nothing of the graph."""
    graph = workflow(changes={"39": {"vae_name": "absent.safetensors"}})

    status, body = await client.post(graph)

    assert status == 400
    assert [e["type"] for e in body["node_errors"]["39"]["errors"]] == [
        "value_not_in_list"
    ]
    assert await client.log() == []


async def test_a_class_without_a_node_is_unknown(client, workflow):
    """A class that does not run here is refused, and not in /object_info."""
    graph = workflow()
    graph["58"]["class_type"] = "SaveWEBM"

    status, body = await client.post(graph)

    assert status == 400
    assert body["error"]["type"] == "invalid_prompt"
    assert await client.get("/object_info/SaveWEBM") == {}


async def test_history(client, workflow):
    """The history holds what was run, its outputs and its messages; entries can go."""
    prompt_id = "any string, ä"
    await client.run(workflow(), prompt_id=prompt_id, extra_data={"mine": 1})

    entry = await client.entry(prompt_id)
    newest = await client.get("/history", max_items=1)
    await client.say("/history", delete=[prompt_id])
    deleted = await client.get(f"/history/{prompt_id}")
    await client.run(workflow(), prompt_id="again")
    await client.say("/history", clear=True)

    assert entry["prompt"][0] == 0
    assert entry["prompt"][1] == prompt_id
    assert entry["prompt"][3] == {"mine": 1, "client_id": "me"}
    assert entry["prompt"][4] == ["58"]
    assert entry["outputs"] == {"58": {"images": [OUTPUT], "animated": [True]}}
    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    assert list(newest) == [prompt_id]
    assert deleted == {}
    assert await client.get("/history") == {}


async def test_history_before_the_end(client, workflow):
    """Who hears `executing` null finds the entry in the history, every time."""
    for seed in range(8):
        graph = workflow(changes={"3": {"seed": seed}})
        frames = await client.run(graph)
        prompt_id = frames[-1]["data"]["prompt_id"]

        assert await client.entry(prompt_id) is not None


async def test_queue_and_its_order(client, workflow, blocked):
    """What waits is listed in the order it will run in: number, then arrival."""
    first = await client.submit(workflow())
    front = await client.submit(workflow(), front=True)
    numbered = await client.submit(workflow(), number=-1000)

    queue = await client.get("/queue")
    count = await client.get("/prompt")
    jobs = (await client.get("/api/jobs", status="pending,in_progress"))["jobs"]
    await client.say("/interrupt")
    frames = await client.until("executing", node=None, prompt_id=first)

    assert [item[1] for item in queue["queue_running"]] == [blocked]
    assert [item[:2] for item in queue["queue_pending"]] == [
        [-1000.0, numbered],
        [-2, front],
        [1, first],
    ]
    assert count == {"exec_info": {"queue_remaining": 4}}
    assert [job["status"] for job in jobs] == ["pending"] * 3 + ["in_progress"]
    assert [
        frame["data"]["prompt_id"]
        for frame in frames
        if frame.get("type") == "execution_start"
    ] == [numbered, front, first]


async def test_deleting_from_the_queue(client, workflow, blocked):
    """A deleted prompt never starts and leaves no trace; a running one goes on."""
    kept = await client.submit(workflow())
    gone = await client.submit(workflow())

    await client.say("/queue", delete=[gone, blocked, "unknown"])
    queue = await client.get("/queue")
    await client.say("/queue", clear=True)
    cleared = await client.get("/queue")
    await client.say("/interrupt")
    frames = await client.until("executing", node=None)

    assert [item[1] for item in queue["queue_pending"]] == [kept]
    assert [item[1] for item in cleared["queue_running"]] == [blocked]
    assert cleared["queue_pending"] == []
    assert frames[-1]["data"]["prompt_id"] == blocked
    assert await client.entry(gone) is None
    assert await client.log() == [
        (blocked, "interrupted"),
        (kept, "deleted"),
        (gone, "deleted"),
    ]


async def test_interrupts_that_miss(client, workflow, blocked):
    """An interrupt of another prompt, or of none, harms nobody."""
    waiting = await client.submit(workflow())

    await client.say("/interrupt", prompt_id=waiting)
    await client.say("/interrupt", prompt_id="unknown")
    still = await client.get("/queue")
    await client.say("/interrupt", prompt_id=blocked)
    await client.until("executing", node=None, prompt_id=waiting)
    await client.say("/interrupt")  # nothing runs: the next prompt must not feel it
    frames = await client.run(workflow(changes={"3": {"seed": 5}}))

    assert [item[1] for item in still["queue_running"]] == [blocked]
    assert "execution_success" in [frame.get("type") for frame in frames]
    assert [state for _, state in await client.log()] == [
        "interrupted",
        "success",
        "success",
    ]


async def test_free_forgets_the_cache(client, workflow):
    """After /free everything is computed anew."""
    await client.run(workflow())
    await client.say("/free", unload_models=True, free_memory=True)

    frames = await client.run(workflow())

    cached = next(f for f in frames if f.get("type") == "execution_cached")
    assert cached["data"]["nodes"] == []


async def test_jobs(client, workflow):
    """Jobs are listed newest first, with how they ended."""
    good = await client.submit(workflow())
    await client.until("executing", node=None)
    await client.break_(error_at_node="KSampler", times=1)
    bad = await client.submit(workflow(changes={"3": {"seed": 2}}))
    await client.until("executing", node=None)

    jobs = (await client.get("/api/jobs"))["jobs"]
    one = await client.get(f"/api/jobs/{good}")

    assert [(job["id"], job["status"]) for job in jobs] == [
        (bad, "failed"),
        (good, "completed"),
    ]
    assert jobs[1]["outputs_count"] == 1
    assert jobs[1]["preview_output"] == OUTPUT | {"nodeId": "58", "mediaType": "images"}
    assert one["outputs"]["58"]["images"] == [OUTPUT]
    assert one["execution_status"]["completed"] is True
    async with client.http.get("/api/jobs/unknown") as answer:
        assert answer.status == 404
    async with client.http.get("/api/jobs?status=odd") as answer:
        assert answer.status == 400


async def test_weights(client):
    """The files of each folder of weights are listed, those of other folders not."""
    vae = await client.get("/models/vae")

    assert vae == [
        "wan2.2_vae.safetensors",
        "wan_2.1_vae.safetensors",
        "pixel_space",
    ]
    assert "loras" in await client.get("/models")
    async with client.http.get("/models/other") as answer:
        assert answer.status == 404


async def test_it_says_what_it_is(client):
    """/system_stats names a CPU, and says that this engine is the embedded one."""
    stats = await client.get("/system_stats")

    assert stats["system"]["embedded"] is True
    assert stats["system"]["comfyui_version"]
    assert [device["type"] for device in stats["devices"]] == ["cpu"]


@pytest.mark.parametrize(
    "path",
    ["/prompt", "/queue", "/history", "/object_info", "/system_stats", "/features"],
)
async def test_everything_is_under_api_too(client, path):
    """Each route answers under /api as well."""
    plain, prefixed = await client.get(path), await client.get(f"/api{path}")

    assert plain.keys() == prefixed.keys()


async def test_it_answers_while_it_paints(engine, client, workflow):
    """HTTP is served while a film is painted; an interrupt leaves no file of it."""
    size = {"width": 1024, "height": 1024, "length": 481}
    await client.submit(workflow(changes={"55": size}))
    await client.until("executing", node="58")

    await client.get("/system_stats")
    queue = await client.get("/queue")
    await client.say("/interrupt")
    frames = await client.until("executing", node=None)

    assert len(queue["queue_running"]) == 1
    assert frames[0]["type"] == "execution_interrupted"
    assert list(engine.settings.folder("output").rglob("*.mp4")) == []


async def test_pages_of_other_origins_are_refused(engine, client):
    """A page of another site cannot talk to the engine on loopback."""
    statuses = []
    for origin in ("https://evil.example", engine.url):
        headers = {"Origin": origin}
        async with client.http.get("/prompt", headers=headers) as answer:
            statuses.append(answer.status)

    assert statuses == [403, 200]

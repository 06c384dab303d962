"""
A whole service over a real ComfyUI: a request in, a checked video out.

WAN_TEST_COMFYUI=http://127.0.0.1:8188 pytest -m comfyui tests/test_real_comfyui.py

That ComfyUI needs the service's weights (tiny ones with random numbers do) and must be
idle. WAN_TEST_COMFYUI_CMD is a command that starts one with the same weights on
127.0.0.1:{port}, for the test that kills it.
"""

import base64
import contextlib
import io
import json
import os
import random

import aiohttp
import av
import psutil
import pytest
from PIL import Image

from common.ports import next_free
from tests.live import fastwan, wrapper

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(300)]

TO_THE_END_S = 120
LONG = {"width": 384, "height": 384, "frames": 17, "steps": 50}  # seconds, on a CPU


@pytest.fixture(scope="module")
def comfyui():
    """The address of the real ComfyUI."""
    url = os.environ.get("WAN_TEST_COMFYUI")
    if not url:
        pytest.skip("WAN_TEST_COMFYUI names no ComfyUI")
    return url.rstrip("/")


@pytest.fixture
async def live(comfyui, tmp_path):
    """FastWan over the real ComfyUI."""
    async with wrapper(tmp_path / "data", comfyui) as running:
        yield running


def fresh() -> int:
    """Return a seed that no earlier run has left in ComfyUI's cache."""
    return random.randrange(2**53)


async def done(live, job):
    """Follow a job to its end."""
    return await live.finished(job["id"], TO_THE_END_S)


async def engine_json(live, path, **options):
    """Ask ComfyUI itself, past the service."""
    url = live.runtime.engines[0].comfy.url
    method = "POST" if "json" in options else "GET"
    async with live.http.request(method, url + path, **options) as answer:
        assert answer.status == 200
        text = await answer.text()
        return json.loads(text) if text else None


async def graph_of(live, job):
    """Return the graph that ComfyUI ran for a job, from its own history."""
    history = await engine_json(live, f"/history/{job['id']}")
    return history[job["id"]]["prompt"][2]


async def download(live, output):
    """Return an output's bytes."""
    async with live.http.get(live.url + output["url"]) as answer:
        assert answer.status == 200
        return await answer.read()


async def sampling(live, job):
    """Return once the sampler has made a step."""
    return await live.until(job["id"], lambda j: j["progress"]["step"], TO_THE_END_S)


async def test_text_becomes_a_checked_video(live):
    """Size, length and pace are those asked for, and the prompt stays out of it."""
    prompt = f"a lighthouse at dusk {fresh()}"
    job = await live.job(
        prompt=prompt, width=320, height=256, frames=9, fps=16, seed=fresh()
    )
    job = await done(live, job)

    assert job["status"] == "succeeded", job["error"]
    assert (job["engine"], job["attempt"]) == ("comfyui", 1)
    assert not live.runtime.engines[0].comfy.info.embedded
    (output,) = job["outputs"]
    assert (output["width"], output["height"]) == (320, 256)
    assert (output["frames"], output["fps"]) == (9, 16.0)
    data = await download(live, output)
    assert len(data) == output["size_bytes"]
    assert prompt.encode() not in data
    assert b"class_type" not in data
    with av.open(io.BytesIO(data)) as film:
        frames = [(f.width, f.height) for f in film.decode(video=0)]
        [video] = film.streams.video
        assert (video.average_rate, video.codec_context.name) == (16, "h264")
    assert frames == [(320, 256)] * 9
    async with live.http.get(live.url + output["poster_url"]) as answer:
        poster = Image.open(io.BytesIO(await answer.read()))
    assert poster.size == (320, 256)


async def test_an_image_becomes_the_first_frame(live):
    """It reaches ComfyUI by upload, in the graph's own LoadImage."""
    picture = io.BytesIO()
    Image.effect_noise((300, 280), 80).convert("RGB").save(picture, "PNG")
    image = base64.b64encode(picture.getvalue()).decode()
    job = await done(live, await live.job(image=image, seed=fresh()))
    graph = await graph_of(live, job)

    assert job["status"] == "succeeded", job["error"]
    [loader] = [id_ for id_, n in graph.items() if n["class_type"] == "LoadImage"]
    [latent] = [n for n in graph.values() if n["class_type"].startswith("Wan22Image")]
    assert graph[loader]["inputs"]["image"].startswith("wan/")
    assert latent["inputs"]["start_image"] == [loader, 0]


async def test_without_an_image_the_graph_loads_none(live):
    """The same workflow serves text alone."""
    job = await done(live, await live.job(seed=fresh()))
    graph = await graph_of(live, job)

    assert job["status"] == "succeeded", job["error"]
    assert "LoadImage" not in {node["class_type"] for node in graph.values()}


async def test_a_cached_graph_still_gives_a_file_of_its_own(live):
    """The second time only the saving node runs."""
    seed = fresh()
    first = await done(live, await live.job(seed=seed))
    second = await done(live, await live.job(seed=seed))

    assert first["status"] == second["status"] == "succeeded"
    assert "Sampler" in first["timings"]["nodes"]
    assert set(second["timings"]["nodes"]) <= {"Save video"}
    assert first["outputs"][0]["sha256"] == second["outputs"][0]["sha256"]
    assert await download(live, second["outputs"][0])


async def test_progress_only_grows_and_previews_are_shown(live):
    """Every step is told, in order, and a preview is a picture that can be fetched."""
    job = await live.job(**LONG, seed=fresh())
    seen, pictures = [], []
    async for event, _, data in live.events(job["id"]):
        if event == "job":
            seen.append(data)
        else:
            async with live.http.get(live.url + data["url"]) as answer:
                if answer.status == 200:  # the job may be over by now
                    pictures.append(Image.open(io.BytesIO(await answer.read())).format)

    values = [one["progress"]["value"] for one in seen]
    steps = [one["progress"]["step"] for one in seen if one["progress"]["step"]]
    stages = list(dict.fromkeys(one["progress"]["stage"] for one in seen))
    assert seen[-1]["status"] == "succeeded", seen[-1]["error"]
    assert values == sorted(values)
    assert values[-1] == 1
    assert len(set(values)) > LONG["steps"] / 2
    assert steps == sorted(steps)
    assert {one["progress"]["steps"] for one in seen if one["progress"]["step"]} == {
        LONG["steps"]
    }
    assert stages.index("sampling") < stages.index("decoding") < stages.index("saving")
    assert len(pictures) > 2
    assert set(pictures) <= {"JPEG", "PNG"}


async def test_a_running_job_that_is_canceled_frees_comfyui(live):
    """It stops at the next step, and the job behind it runs."""
    job = await live.job(**LONG, seed=fresh())
    following = await live.job(seed=fresh())
    await sampling(live, job)
    status, body = await live.post(f"/jobs/{job['id']}/cancel")
    canceled = await done(live, job)

    assert (status, body["status"]) == (200, "canceling")
    assert canceled["status"] == "canceled"
    assert canceled["progress"]["step"] < LONG["steps"]
    assert (await done(live, following))["status"] == "succeeded"


async def test_a_queued_job_that_is_canceled_never_reaches_comfyui(live):
    """The queue is ours, so ComfyUI has no trace of it."""
    running = await live.job(**LONG, seed=fresh())
    queued = await live.job(seed=fresh())
    await sampling(live, running)
    status, body = await live.post(f"/jobs/{queued['id']}/cancel")
    await live.post(f"/jobs/{running['id']}/cancel")

    assert (status, body["status"]) == (200, "canceled")
    assert (await done(live, running))["status"] == "canceled"
    assert await engine_json(live, f"/history/{queued['id']}") == {}


async def test_an_interrupt_from_comfyuis_own_page_cancels_the_job(live):
    """Somebody at ComfyUI's editor pressed its stop button."""
    job = await live.job(**LONG, seed=fresh())
    await sampling(live, job)
    await engine_json(live, "/interrupt", json={})
    job = await done(live, job)

    assert (job["status"], job["error"], job["attempt"]) == ("canceled", None, 1)


async def test_an_unknown_lora_is_refused_before_a_job_is_made(live):
    """By ComfyUI's own list of files."""
    lora = {"name": "no_such_style.safetensors"}
    status, body = await live.submit(loras=[lora])

    assert (status, body["code"]) == (422, "unknown_lora")
    assert body["errors"][0]["field"] == "loras.0.name"


async def test_a_lora_is_chained_before_the_sampler(live):
    """Behind the service's own LoRA, with its strength."""
    own = fastwan().workflow.weights()
    listed = await live.runtime.choices("LoraLoaderModelOnly", "lora_name")
    extra = next((name for name in listed if name not in own), None)
    if extra is None:
        pytest.skip("this ComfyUI has no LoRA beside the service's own")
    loras = [{"name": extra, "strength": 0.5}]
    job = await done(live, await live.job(loras=loras, seed=fresh()))
    graph = await graph_of(live, job)

    assert job["status"] == "succeeded", job["error"]
    [lora] = [
        (id_, node["inputs"])
        for id_, node in graph.items()
        if node["inputs"].get("lora_name") == extra
    ]
    shift = next(n for n in graph.values() if n["class_type"] == "ModelSamplingSD3")
    assert shift["inputs"]["model"] == [lora[0], 0]
    assert lora[1]["strength_model"] == 0.5
    assert graph[lora[1]["model"][0]]["inputs"]["lora_name"] in own


async def test_weights_that_are_not_there_are_named(live, comfyui, tmp_path):
    """ComfyUI refuses the graph, and the job says which file it misses."""
    service = fastwan()
    service.workflow.patch("VAE", "vae_name", "no_such_vae.safetensors")
    async with wrapper(tmp_path / "other", comfyui, service=service) as other:
        job = await done(other, await other.job(seed=fresh()))

    assert (job["status"], job["error"]["code"]) == ("failed", "missing_model")
    assert "no_such_vae.safetensors" in job["error"]["message"]


async def test_a_wrapper_that_restarts_adopts_the_running_job(comfyui, tmp_path):
    """ComfyUI ran it once, and its video is collected."""
    async with wrapper(tmp_path / "data", comfyui, drain_s=0) as live:
        job = await live.job(**LONG, seed=fresh())
        await sampling(live, job)
    async with wrapper(tmp_path / "data", comfyui) as live:
        job = await done(live, job)

        assert (job["status"], job["attempt"]) == ("succeeded", 1)


async def test_a_comfyui_that_is_killed_gets_the_job_again(tmp_path):
    """Started and watched by the service: it comes back, and attempt two succeeds."""
    command = os.environ.get("WAN_TEST_COMFYUI_CMD")
    if not command:
        pytest.skip("WAN_TEST_COMFYUI_CMD names no command that starts a ComfyUI")
    port = next_free("127.0.0.1", 8288)
    async with wrapper(
        tmp_path / "data", None, reach=False, comfyui_cmd=command, engine_port=port
    ) as live:
        await live.runtime.engines[0].comfy.wait_until_ready(TO_THE_END_S)
        job = await live.job(**LONG, seed=fresh())
        await sampling(live, job)
        served_by(port).kill()
        job = await done(live, job)

        assert (job["status"], job["attempt"]) == ("succeeded", 2), job["error"]
        assert served_by(port).is_running()
    with pytest.raises(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession() as http:
            await http.get(f"http://127.0.0.1:{port}/queue")


def served_by(port):
    """Return the process, among our children, that listens on a port."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(c.laddr.port == port for c in child.net_connections("tcp")):
                return child
    raise AssertionError("no child listens there")

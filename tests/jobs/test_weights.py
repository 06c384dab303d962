"""A running service fetches the weights that its jobs lack; bytes, disks, engines."""

import asyncio
import base64
import contextlib
import math
import re

import pytest

from common.jobs import supply
from common.models.needs import needs
from common.service import find, load
from tests.live import engine, fastwan, wrapper
from tests.models.shelf import shelf
from tests.pictures import png
from tests.range_server import Fault

VAE = "wan2.2_vae.safetensors"
TAKEN = "model_storage_bytes_used"
BIG = 400_000  #: bytes of a file
RATE = 1_000_000  #: bytes per second and connection


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    """Tell and try again sooner than people need it."""
    monkeypatch.setattr(supply, "TELL_S", 0.05)
    monkeypatch.setattr(supply, "RETRY_S", (0.2, 0.4))


@contextlib.contextmanager
def published(folder, rate=None, size=4096, service=None):
    """Publish what a service loads."""
    with shelf(folder, rate=rate) as there:
        for need in needs(service or fastwan()):
            there.put(need.name, size, where=need.folder)
        yield there


@contextlib.asynccontextmanager
async def serving(folder, there, root="root", data="data", **options):
    """Serve a service that fetches, over an engine that offers what is there."""
    options = {"models_margin_gb": 0, **options}
    async with (
        engine(
            folder / "engine", models=(there.folder / root / "models",), strict=True
        ) as engine_url,
        wrapper(
            folder / data,
            engine_url,
            models=there.folder / root,
            models_manifest=there.write(),
            **options,
        ) as live,
    ):
        yield live


async def test_a_job_waits_while_its_weights_arrive(tmp_path):
    """It is accepted, told how far it is in bytes that grow, and then it runs."""
    with published(tmp_path, RATE, BIG) as there:
        async with serving(tmp_path, there) as live:
            job = await live.job()
            seen = []
            async with asyncio.timeout(30):
                async for event, _, data in live.events(job["id"]):
                    if event == "job":
                        seen.append(data)

    waited = [one["progress"] for one in seen if one["status"] == "queued"]
    told = [one for one in waited if one["stage"] == "downloading"]
    done = [one["done_bytes"] for one in told]
    assert seen[-1]["status"] == "succeeded"
    assert done == sorted(done)
    assert len(set(done)) > 2
    assert told[-1]["total_bytes"] > 4 * BIG
    assert seen[-1]["attempt"] == 1


async def test_the_service_says_how_far_its_weights_are(tmp_path):
    """Not ready and by how much, file by file; then ready, counted, and open to see."""
    with published(tmp_path, RATE, BIG) as there:
        async with serving(tmp_path, there) as live:
            status, early = await until_some(live)
            _, models = await live.get("/models")
            health_early = (await live.get("/health/models/m@1"))[0]
            await live.finished((await live.job())["id"])
            ready = await live.get("/ready")
            late = (await live.get("/models"))[1]
            health = await live.get("/health/models")
            of_model = await live.get("/health/models/m@1")
            nothing = await live.get("/health/models/m@2")
            counted = await metrics(live)

    assert status == 503
    assert {one["file"] for one in early["missing"]} <= {
        one["file"] for one in models["files"]
    }
    assert any("is being fetched" in one["message"] for one in early["missing"])
    assert early["missing"][0]["looked_in"].startswith("models/")
    assert models["state"] == "downloading"
    assert 0 < models["done_bytes"] < models["total_bytes"]
    assert health_early == 503
    assert (ready[0], ready[1]["missing"]) == (200, [])
    assert "weights" in ready[1]["timeline"]
    assert late["state"] == "ready"
    vae = next(one for one in late["files"] if one["file"] == VAE)
    assert (vae["state"], vae["usable"], vae["listed"]) == ("verified", True, True)
    assert vae["where"] == f"models/vae/{VAE}"
    assert vae["needed_for"] == "every request"
    assert vae["done_bytes"] == vae["size_bytes"] > BIG
    assert str(tmp_path) not in str([early, models, late])
    assert (health[0], health[1]["missing"]) == (200, [])
    assert of_model[0] == 200
    assert of_model[1]["models"][0]["state"] == "ready"
    assert (nothing[0], nothing[1]["code"]) == (404, "not_found")
    assert counted['model_downloads_total{result="succeeded"}'] == 4
    assert counted["model_download_duration_seconds_count"] == 4


async def test_what_is_there_is_not_fetched_again(tmp_path):
    """A second service on the volume runs a job at once; other's files are trusted."""
    with published(tmp_path) as there:
        async with serving(tmp_path, there) as live:
            await live.finished((await live.job())["id"])
        before = len(there.server.asked)
        async with serving(tmp_path, there, data="other") as live:
            done = await live.finished((await live.job())["id"])
            async with asyncio.timeout(20):
                while math.isnan((counted := await metrics(live))[TAKEN]):
                    await asyncio.sleep(0.02)

    assert done["status"] == "succeeded"
    assert len(there.server.asked) == before
    assert 'model_downloads_total{result="succeeded"}' not in counted
    assert counted[TAKEN] > 4 * 4096


async def test_a_damaged_file_is_replaced_and_the_job_tried_once_more(tmp_path):
    """The engine cannot read it; what is on the volume is hashed, and fetched anew."""
    with published(tmp_path) as there:
        async with serving(tmp_path, there) as live:
            await live.finished((await live.job())["id"])
            damage(there.folder / "root" / "models" / "vae" / VAE)
            await live.runtime.engines[0].comfy.free()
            done = await live.finished((await live.job(seed=8))["id"])
            counted = await metrics(live)

    assert (done["status"], done["attempt"]) == ("succeeded", 2)
    assert counted['model_downloads_total{result="succeeded"}'] == 5


async def test_a_file_that_vanished_is_fetched_and_the_job_tried_once_more(tmp_path):
    """The engine refuses the graph, as ComfyUI does."""
    with published(tmp_path) as there:
        async with serving(tmp_path, there) as live:
            await live.finished((await live.job())["id"])
            remove_vae(there)
            done = await live.finished((await live.job(seed=8))["id"])

    assert (done["status"], done["attempt"]) == ("succeeded", 2)


async def test_a_file_that_vanished_comes_back_before_a_job_needs_it(tmp_path):
    """Whoever asks whether the service is ready has it looked after."""
    with published(tmp_path) as there:
        async with serving(tmp_path, there) as live:
            await live.finished((await live.job())["id"])
            remove_vae(there)
            await until(live, "/ready", lambda body: not body["ready"])
            await until(live, "/ready", lambda body: body["ready"])

        assert (there.folder / "root/models/vae" / VAE).is_file()


async def test_a_file_that_nobody_can_mend_fails_the_job(tmp_path):
    """One more try, and no third."""
    with published(tmp_path) as there:
        async with serving(tmp_path, there) as live:
            await live.fault(
                error_at_node={
                    "node": "VAELoader",
                    "type": "safetensors.SafetensorError",
                    "message": "Error while deserializing header",
                }
            )
            done = await live.finished((await live.job())["id"])
            prompts = await live.prompts()

    assert (done["status"], done["attempt"]) == ("failed", 2)
    assert done["error"]["code"] == "corrupt_model"
    assert len(prompts) == 2


async def test_jobs_wait_for_room_on_the_volume(tmp_path):
    """Nothing is fetched, /ready says why, and a job can be canceled meanwhile."""
    with published(tmp_path) as there:
        async with serving(tmp_path, there, models_margin_gb=1e9) as live:
            job, other = await live.job(), await live.job(seed=8)
            ready = await until(live, "/ready", lambda body: "no_space" in str(body))
            waiting = (await live.get(f"/jobs/{job['id']}"))[1]
            card = (await live.get("/"))[1]
            files = (await live.get("/models"))[1]["files"]
            _, canceled = await live.post(f"/jobs/{other['id']}/cancel")
            counted = await metrics(live)
            asked = list(there.server.asked)
            there_is_room(live)
            done = await live.finished(job["id"])

    assert waiting["status"] == "queued"
    assert {one["what"] for one in ready["missing"]} == {"weights"}
    assert str(tmp_path) not in str([ready, files])
    assert {one["error"]["code"] for one in files} == {"no_space"}
    assert {one["state"] for one in card["models"]} == {"missing"}
    assert canceled["status"] == "canceled"
    assert asked == []
    assert counted['model_errors_total{code="no_space"}'] >= 1
    assert done["status"] == "succeeded"


async def test_a_source_that_fails_is_asked_again(tmp_path):
    """The job waits, and runs when the source is back."""
    with published(tmp_path) as there:
        there.server.fault = lambda asked: Fault(status=404)
        async with serving(tmp_path, there) as live:
            job = await live.job()
            await until(live, "/ready", lambda body: "sources_failed" in str(body))
            there.server.fault = lambda asked: None
            done = await live.finished(job["id"])
            counted = await metrics(live)

    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    assert counted['model_downloads_total{result="failed"}'] >= 4
    assert counted['model_errors_total{code="sources_failed"}'] >= 4


async def test_weights_of_rarer_requests_are_fetched_when_one_comes(tmp_path):
    """It waits for them, while requests of the usual kind go before it."""
    service = load(find("wan2.2-14b-loras"))
    picture = base64.b64encode(png(256, 256)).decode()
    with published(tmp_path, service=service) as there:
        there.server.fault = lambda asked: Fault(
            status=404 if "t2v" in asked.path else None
        )
        async with serving(tmp_path, there, service=service) as live:
            usual = await live.finished((await live.job(image=picture))["id"])
            ready = await live.get("/ready")
            before = [one.path for one in there.server.asked if "t2v" in one.path]
            rare = await live.job()
            await until(live, "/ready", lambda body: "sources_failed" in str(body))
            other = await live.finished((await live.job(image=picture, seed=8))["id"])
            waiting = (await live.get(f"/jobs/{rare['id']}"))[1]
            there.server.fault = lambda asked: None
            done = await live.finished(rare["id"])
            late = await live.get("/ready")

    assert usual["status"] == other["status"] == done["status"] == "succeeded"
    assert ready[0] == 200
    assert {one["file"].split("_")[1] for one in ready[1]["notes"]} == {"t2v"}
    assert "requests without image" in ready[1]["notes"][0]["message"]
    assert before == []
    assert (waiting["status"], waiting["queue_position"]) == ("queued", 0)
    assert late[1]["notes"] == []


async def test_a_stop_while_weights_arrive_loses_nothing(tmp_path):
    """It ends at once; the next start goes on from there, and runs the job."""
    with published(tmp_path, RATE, 10 * BIG) as there:
        async with serving(tmp_path, there) as live:
            job = await live.job()
            await live.until(
                job["id"], lambda job: (job["progress"]["done_bytes"] or 0) > BIG
            )
        sent = there.server.sent
        there.server.rate = None
        async with serving(tmp_path, there) as live:
            done = await live.finished(job["id"])

    assert sent < 30 * BIG
    assert (done["status"], done["attempt"]) == ("succeeded", 1)


async def until(live, path, condition):
    """Ask again until a condition holds for the body, and return it."""
    async with asyncio.timeout(20):
        while not condition(body := (await live.get(path))[1]):
            await asyncio.sleep(0.05)
    return body


async def until_some(live):
    """Return the first answer of /ready that says that bytes have come."""
    async with asyncio.timeout(20):
        while True:
            status, body = await live.get("/ready")
            if any(one.get("done_bytes") for one in body["missing"]):
                return status, body
            await asyncio.sleep(0.05)


async def metrics(live):
    """Return figures by name and labels."""
    async with live.http.get(f"{live.url}/metrics") as answer:
        text = await answer.text()
    found = re.findall(r"^(model_\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def remove_vae(there):
    """Remove a file and its bytes, as somebody does who makes room."""
    (there.folder / "root/models/vae" / VAE).unlink()
    for blob in (there.folder / "root/blobs/sha256").glob("*/*"):
        blob.unlink()


def damage(path):
    """Write over a file's header, as a disk does: same size."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"\xff" * 16)


def there_is_room(live):
    """Free some space."""
    live.runtime.ensurer._margin = 0

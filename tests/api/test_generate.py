"""POST /generate: every way a request can be sent, and sent again."""

import asyncio
import base64
import json
from datetime import timedelta

import aiohttp
import pytest

from common.jobs.ledger import now
from tests.live import SMALL, both
from tests.pictures import png
from tests.url_server import url_server


async def test_json_is_answered_with_the_job(live):
    """202, where to look, and the request with every default filled in."""
    async with live.http.post(f"{live.url}/generate", json=SMALL) as answer:
        job = await answer.json()

    assert answer.status == 202
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert job["job_id"] == job["id"]
    assert job["status"] in ("queued", "running")
    assert job["request"] | SMALL == job["request"]
    assert job["request"]["cfg"] == 1.0


async def test_a_seed_that_was_not_given_is_drawn_and_told(live):
    """The same video can be made again from what the job says."""
    seeds = {(await live.job(seed=None))["request"]["seed"] for _ in range(3)}

    assert len(seeds) == 3
    assert all(0 <= seed < 2**53 for seed in seeds)


def form(**parts):
    """Return a multipart form; bytes become files."""
    data = aiohttp.FormData(quote_fields=False)
    for name, value in parts.items():
        if isinstance(value, bytes):
            data.add_field(name, value, filename="../../etc/x.png")
        else:
            data.add_field(name, str(value))
    return data


async def test_multipart_takes_a_file_and_numbers_as_text(live):
    """The parts have the names of the JSON fields."""
    parts = {k: v for k, v in SMALL.items() if k != "prompt"}
    data = form(prompt="12", image=png(256, 256), cfg="1.5", loras="[]", **parts)
    status, job = await live.post("/generate", data=data)

    assert status == 202, job
    assert job["request"]["prompt"] == "12"
    assert job["request"]["cfg"] == 1.5
    assert (await live.finished(job["id"]))["status"] == "succeeded"


@pytest.mark.parametrize("form_", ["base64", "data", "upload", "url"])
async def test_a_picture_comes_in_any_form(tmp_path, form_):
    """Base64, a data URI, an upload's id and a URL end as the same kind of id."""
    picture = png(256, 256)
    text = base64.b64encode(picture).decode()
    async with (
        url_server() as urls,
        both(tmp_path, input_allow_hosts=urls) as live,
    ):
        if form_ == "upload":
            data = form(file=picture)
            text = (await live.post("/uploads", data=data))[1]["id"]
        elif form_ == "data":
            text = f"data:image/png;base64,{text}"
        elif form_ == "url":
            text = f"http://{urls}/ok_png"
        job = await live.job(image=text)
        done = await live.finished(job["id"])

        assert done["status"] == "succeeded"
        assert len(job["request"]["image"]) == 36
        status, again = await live.post(f"/jobs/{job['id']}/retry")
        assert (status, again["request"]) == (202, job["request"])


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"frames": 6}, "frames"),
        ({"width": 300}, "width"),
        ({"promt": "x"}, "promt"),
        ({"prompt": ""}, "prompt"),
        ({"width": 1280, "height": 1280, "frames": 241}, ""),
        ({"image": "0" * 8 + "-0000-4000-8000-" + "0" * 12}, "image"),
        ({"image": "http://127.0.0.1/x.png"}, "image"),
        ({"loras": [{"name": "nobody"}]}, "loras.0.name"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_refused_is_named(live, given, field):
    """422 says which field, and nothing is queued."""
    status, body = await live.submit(**given)

    assert status == 422
    assert body["errors"], body
    assert body["errors"][0]["field"] == field or not field
    assert (await live.get("/jobs"))[1]["jobs"] == []


async def test_a_file_that_is_empty_is_named(live):
    """A form whose file was not chosen, say."""
    status, body = await live.post("/generate", data=form(**{**SMALL, "image": b""}))

    assert (status, body["errors"][0]["field"]) == (415, "image")
    assert body["errors"][0]["hint"] == "send a picture"


async def test_a_lora_is_looked_up_among_those_installed(live, monkeypatch):
    """By its name in any case; pickles are not offered, since loading runs them."""

    async def listed(class_type, input_):
        return ("styles\\Ink Wash.safetensors", "evil.pt")

    monkeypatch.setattr(live.runtime.intake, "_choices", listed)
    job = await live.job(loras=[{"name": "styles/ink wash"}])
    status, body = await live.submit(loras=[{"name": "evil.pt"}])
    near = (await live.submit(loras=[{"name": "styles/ink-wash"}]))[1]
    again, _ = await live.post(f"/jobs/{job['id']}/retry")

    assert job["request"]["loras"][0]["name"] == "styles\\Ink Wash.safetensors"
    assert (status, body["code"], again) == (422, "unknown_lora", 202)
    assert "Ink Wash" in near["errors"][0]["hint"]


class TestPrefer:
    async def test_a_job_that_is_done_in_time_is_the_answer(self, live):
        """200 and the finished job."""
        headers = {"Prefer": "respond-async, wait=20"}
        async with live.http.post(
            f"{live.url}/generate", json=SMALL, headers=headers
        ) as answer:
            job = await answer.json()

        assert (answer.status, job["status"]) == (200, "succeeded")
        assert answer.headers["Preference-Applied"] == "wait=20"

    async def test_a_job_that_is_not_goes_on(self, held):
        """202 when time is up; the job is where it was."""
        status, job = await held.submit(headers={"Prefer": "wait=1"}, seed=1)

        assert (status, job["status"]) == (202, "queued")
        assert (await held.get(f"/jobs/{job['id']}"))[1]["status"] == "queued"

    async def test_a_caller_who_hangs_up_leaves_nothing_behind(self, held):
        """The wait ends with the connection; the job stays."""
        call = asyncio.create_task(held.submit(headers={"Prefer": "wait=300"}, seed=1))
        while not held.runtime.bus.watchers():
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        while held.runtime.bus.watchers():
            await asyncio.sleep(0.01)

        assert len((await held.get("/jobs"))[1]["jobs"]) == 2


class TestIdempotency:
    async def test_the_same_key_and_request_is_the_same_job(self, live):
        """Sent twice, also after it is done; made once."""
        headers = {"Idempotency-Key": "order 1"}
        first = (await live.submit(headers))[1]
        await live.finished(first["id"])
        status, again = await live.submit(headers)

        assert (status, again["id"]) == (202, first["id"])
        assert len(await live.prompts()) == 1

    async def test_another_request_under_the_key_is_a_conflict(self, live):
        """409, rather than a job that the caller did not mean."""
        headers = {"Idempotency-Key": "k"}
        await live.submit(headers)
        status, body = await live.submit(headers, seed=8)

        assert (status, body["code"]) == (409, "idempotency_conflict")

    @pytest.mark.parametrize("key", ["", "k" * 256, "é"], ids=["no", "long", "é"])
    async def test_a_key_that_is_no_key_is_refused(self, live, key):
        """1 to 255 printable ASCII characters."""
        assert (await live.submit({"Idempotency-Key": key}))[0] == 422

    async def test_fifty_at_once_make_one_job(self, live):
        """Whoever is first wins; all are told of the same job."""
        headers = {"Idempotency-Key": "k"}
        answers = await asyncio.gather(*(live.submit(headers) for _ in range(50)))

        assert {status for status, _ in answers} == {202}
        assert len({job["id"] for _, job in answers}) == 1
        assert len((await live.get("/jobs"))[1]["jobs"]) == 1

    async def test_a_key_outlives_the_process(self, tmp_path):
        """A caller that repeats itself across our restart gets no second job."""
        headers = {"Idempotency-Key": "k"}
        async with both(tmp_path) as live:
            first = (await live.submit(headers))[1]
        async with both(tmp_path) as live:
            assert (await live.submit(headers))[1]["id"] == first["id"]

    async def test_a_key_is_forgotten_after_a_day(self, live):
        """A shop that numbers its orders by day may do so."""
        headers = {"Idempotency-Key": "k"}
        first = (await live.submit(headers))[1]
        live.runtime.store._now = lambda: now() + timedelta(hours=25)
        status, second = await live.submit(headers, seed=8)

        assert status == 202
        assert second["id"] != first["id"]

    async def test_keys_of_two_callers_do_not_meet(self, keyed):
        """The same word under two API keys is two jobs."""
        anna, bert, _ = keyed
        headers = {"Idempotency-Key": "k"}
        first = (await anna.submit(headers))[1]
        status, second = await bert.submit(headers, seed=8)

        assert status == 202
        assert first["id"] != second["id"]


async def test_exactly_as_many_wait_as_may(tmp_path):
    """Sixty at once over a limit of twenty: twenty are taken, forty told when."""
    async with both(tmp_path, queue_limit=20) as live:
        await live.fault(zombie=True)
        first = await live.job()
        await live.until(first["id"], lambda job: job["status"] == "running")

        async def submit(seed):
            body = json.dumps(SMALL | {"seed": seed})
            headers = {"Content-Type": "application/json"}
            async with live.http.post(
                f"{live.url}/generate", data=body, headers=headers
            ) as answer:
                return answer.status, answer.headers.get("Retry-After"), answer

        answers = await asyncio.gather(*(submit(seed) for seed in range(60)))
        refused = [(s, after) for s, after, _ in answers if s != 202]

        assert len(answers) - len(refused) == 20
        assert {status for status, _ in refused} == {429}
        assert all(int(after) > 0 for _, after in refused)


async def test_a_service_that_stops_takes_no_more(live):
    """503, when to try again, and what runs is finished."""
    job = await live.job()
    await live.runtime.drain()
    async with live.http.post(f"{live.url}/generate", json=SMALL) as answer:
        body = await answer.json()

    assert (answer.status, body["code"]) == (503, "shutting_down")
    assert int(answer.headers["Retry-After"]) > 0
    assert (await live.get("/ready"))[1]["missing"][0]["what"] == "draining"
    assert (await live.get(f"/jobs/{job['id']}"))[1]["status"] == "succeeded"

"""Listing, canceling, repeating and deleting jobs."""

import asyncio
import json
import uuid

import aiohttp
import pytest

from common.api.schema import JobView
from common.errors import StoreUnavailable
from tests.live import both
from tests.pictures import png


async def ids(live, query=""):
    """Return the ids of one page, and the cursor of the next."""
    status, page = await live.get(f"/jobs{query}")
    assert status == 200, page
    return [job["id"] for job in page["jobs"]], page["next_cursor"]


class TestList:
    async def test_the_newest_comes_first(self, held):
        """In the order of acceptance, whatever has become of the jobs."""
        later = [(await held.job(seed=seed))["id"] for seed in range(3)]
        found, cursor = await ids(held)

        assert found[:3] == later[::-1]
        assert (len(found), cursor) == (4, None)

    async def test_pages_have_every_job_once(self, held):
        """Also when jobs are added between two of them."""
        made = [(await held.job(seed=seed))["id"] for seed in range(5)]
        first, cursor = await ids(held, "?limit=2")
        await held.job(seed=99)
        second, cursor = await ids(held, f"?limit=2&cursor={cursor}")
        third, cursor = await ids(held, f"?limit=2&cursor={cursor}")

        assert (first + second + third)[:5] == made[::-1]
        assert cursor is None

    async def test_a_filter_names_one_status_or_more(self, held):
        """Comma-separated."""
        queued = (await held.job(seed=1))["id"]
        canceled = (await held.job(seed=2))["id"]
        await held.post(f"/jobs/{canceled}/cancel")

        assert (await ids(held, "?status=queued"))[0] == [queued]
        assert (await ids(held, "?status=queued,canceled"))[0] == [canceled, queued]
        assert (await ids(held, "?status=succeeded"))[0] == []

    @pytest.mark.parametrize(
        "query",
        [
            "status=done",
            "status=%ff",
            "limit=0",
            "limit=201",
            "limit=x",
            "limit=1e9",
            "cursor=x",
            "cursor=-1",
            "cursor=%00",
            "cursor=9999999999999999999",
        ],
    )
    async def test_nonsense_is_refused_by_name(self, live, query):
        """422 with the parameter's name."""
        status, body = await live.get(f"/jobs?{query}")

        assert (status, body["code"]) == (422, "invalid_input")
        assert body["errors"][0]["field"] == query.partition("=")[0]

    async def test_every_job_has_the_documented_shape(self, live):
        """Queued, succeeded, failed and canceled ones."""
        await live.finished((await live.job())["id"])
        await live.fault(oom_at_node="KSampler", times=3)
        await live.finished((await live.job(seed=1))["id"])
        await live.fault(reset=True, zombie=True)
        await live.job(seed=2)
        canceled = await live.job(seed=3)
        await live.post(f"/jobs/{canceled['id']}/cancel")
        jobs = (await live.get("/jobs"))[1]["jobs"]
        await live.fault(reset=True)

        assert {"succeeded", "failed", "canceled"} < {job["status"] for job in jobs}
        for job in jobs:
            view = JobView.model_validate(job, extra="forbid")
            assert json.loads(view.model_dump_json()) == job


class TestGet:
    @pytest.mark.parametrize("job_id", ["nobody", str(uuid.UUID(int=4)), "1'--"])
    async def test_what_is_not_there_is_404(self, live, job_id):
        """The same words for every reason."""
        status, body = await live.get(f"/jobs/{job_id}")

        assert (status, body["code"]) == (404, "not_found")

    async def test_an_id_may_be_written_in_capitals(self, live):
        """It is a UUID, not a name."""
        job = await live.job()

        assert (await live.get(f"/jobs/{job['id'].upper()}"))[1]["id"] == job["id"]


class TestCancel:
    async def test_a_finished_job_stays_as_it_is(self, live):
        """200 and the job: canceling is not an error when it is too late."""
        done = await live.finished((await live.job())["id"])
        status, job = await live.post(f"/jobs/{done['id']}/cancel")

        assert (status, job) == (200, done)

    async def test_the_places_behind_move_up(self, held):
        """Queue positions count from 0 and have no gaps."""
        first, second, third = [await held.job(seed=seed) for seed in range(3)]
        await held.post(f"/jobs/{second['id']}/cancel")
        places = [
            (await held.get(f"/jobs/{job['id']}"))[1]["queue_position"]
            for job in (first, second, third)
        ]

        assert places == [0, None, 1]


class TestRetry:
    async def test_a_failed_job_is_made_again(self, live):
        """A new job with the same request, seed included."""
        await live.fault(error_at_node="KSampler", times=1)
        failed = await live.finished((await live.job(seed=None))["id"])
        status, again = await live.post(f"/jobs/{failed['id']}/retry")
        done = await live.finished(again["id"])

        assert (status, failed["status"], done["status"]) == (
            202,
            "failed",
            "succeeded",
        )
        assert again["id"] != failed["id"]
        assert again["request"] == failed["request"]

    async def test_it_needs_no_upload(self, live):
        """The job has a link of its own to each file that it was given."""
        form = aiohttp.FormData()
        form.add_field("file", png(256, 256), filename="x.png")
        upload = (await live.post("/uploads", data=form))[1]["id"]
        job = await live.finished((await live.job(image=upload))["id"])
        live.runtime.files.forget(uploads=[upload])
        status, again = await live.post(f"/jobs/{job['id']}/retry")

        assert status == 202
        assert (await live.finished(again["id"]))["status"] == "succeeded"

    async def test_one_that_is_refused_leaves_nothing(self, live, monkeypatch):
        """Neither its links to the files nor a job."""
        form = aiohttp.FormData()
        form.add_field("file", png(256, 256), filename="x.png")
        upload = (await live.post("/uploads", data=form))[1]["id"]
        job = await live.finished((await live.job(image=upload))["id"])

        async def away(accepted):
            raise StoreUnavailable("the job store does not answer")

        monkeypatch.setattr(live.runtime.store, "add", away)
        status, _ = await live.post(f"/jobs/{job['id']}/retry")

        assert status == 503
        assert [p.name for p in (live.runtime.data / "jobs").iterdir()] == [job["id"]]

    async def test_it_may_be_waited_for(self, live):
        """`Prefer: wait` works as it does for a new request."""
        job = await live.finished((await live.job())["id"])
        status, again = await live.post(
            f"/jobs/{job['id']}/retry", headers={"Prefer": "wait=20"}
        )

        assert (status, again["status"]) == (200, "succeeded")


class TestDelete:
    async def delete(self, live, job_id):
        async with live.http.delete(f"{live.url}/jobs/{job_id}") as answer:
            return answer.status

    def folders(self, live):
        return {path.name for path in (live.runtime.data / "jobs").iterdir()}

    async def test_a_finished_job_goes_with_its_files(self, live):
        """204, then 404, and nothing on the disk."""
        done = await live.finished((await live.job())["id"])
        assert self.folders(live) == {done["id"]}

        assert await self.delete(live, done["id"]) == 204
        assert (await live.get(f"/jobs/{done['id']}"))[0] == 404
        assert await self.delete(live, done["id"]) == 404
        assert self.folders(live) == set()

    async def test_a_queued_job_never_starts(self, held):
        """Nor is it heard of again."""
        job = await held.job(seed=1)

        assert await self.delete(held, job["id"]) == 204
        assert (await held.get(f"/jobs/{job['id']}"))[0] == 404
        assert len((await held.get("/jobs"))[1]["jobs"]) == 1

    async def test_a_running_job_is_stopped_first(self, tmp_path):
        """Its watchers are told, and the GPU is free for the next."""
        async with both(tmp_path, speed=0.5) as live:
            job = await live.job(steps=50)
            await live.until(job["id"], lambda j: j["progress"]["stage"] == "sampling")
            watcher = asyncio.create_task(live.finished(job["id"]))

            assert await self.delete(live, job["id"]) == 204
            assert (await watcher)["status"] == "canceled"
            assert (await live.get(f"/jobs/{job['id']}"))[0] == 404
            following = await live.finished((await live.job(steps=1))["id"])
            assert following["status"] == "succeeded"
            assert self.folders(live) == {following["id"]}

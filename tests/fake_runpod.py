"""
A stand-in for RunPod on a real port: the queue in front, what a worker calls behind.

After the documented shapes of the client's API and of REST, and what RunPod's own SDK
calls. A queue of one endpoint, `ep-test`; what a worker posted is kept for the tests.
"""

import asyncio
import contextlib
import itertools

from aiohttp import web

KEY = "rpa_canary_key_of_the_tests"
ENDPOINT = "ep-test"
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}
POLL_S = 0.3  # the platform holds a poll for longer; a worker ends only after it


class Job:
    """A job as the platform keeps it."""

    def __init__(self, job_id, body):
        self.id = job_id
        self.body = body
        self.status = "IN_QUEUE"
        self.stream = []  #: every chunk
        self.posts = []  #: every post to job-done, in the order of their coming
        self.on_the_way = 0  #: updates
        self.overtaken = False  #: the result came while an update was on its way
        self.over = asyncio.Event()
        self.result = {}

    def public(self):
        """Return the answer of GET /status."""
        return {"id": self.id, "status": self.status, **self.result}

    def end(self, status):
        """Be over, whatever a worker may still say."""
        if not self.over.is_set():
            self.status = status
            self.over.set()


class FakeRunPod:
    """The platform."""

    def __init__(self):
        self.url = ""
        self.jobs = {}
        self.queue = asyncio.Queue()
        self.stops = asyncio.Queue()
        self.pings = []
        self.kept = {"templates": {}, "endpoints": {}}
        self.ids = itertools.count(1)
        self.refusals = []  #: statuses that REST answers with before it does its work
        self.slow_s = 0.0  #: how long an update takes to arrive
        self.changed = asyncio.Condition()

    def env(self):
        """Return what a worker finds in its environment."""
        pod = "$RUNPOD_POD_ID"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/job-take/$ID?gpu=test",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/job-done/{pod}/$ID?gpu=test",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self.url}/job-stream/{pod}/$ID?gpu=test",
            "RUNPOD_WEBHOOK_PING": f"{self.url}/ping/{pod}",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_POD_ID": "pod-test",
            "RUNPOD_ENDPOINT_ID": ENDPOINT,
            "RUNPOD_AI_API_KEY": "key-of-the-worker",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    # ---- for tests

    def put(self, job_id, input_, **more):
        """Put a job into the queue, under an id of one's own choice."""
        self.jobs[job_id] = job = Job(job_id, {"input": input_, **more})
        self.queue.put_nowait(job)
        return job

    def stop(self, job, status="CANCELLED"):
        """End a job and tell the worker that has it."""
        job.end(status)
        self.stops.put_nowait(job.id)

    async def until(self, condition, timeout_s=20):
        """Wait until something holds that a worker's call may have changed."""
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(condition)

    async def finished(self, job, timeout_s=20):
        """Return a job when it is over."""
        async with asyncio.timeout(timeout_s):
            await job.over.wait()
        return job

    # ---- the worker's side

    async def take(self, request):
        try:
            async with asyncio.timeout(POLL_S):
                job = await self.queue.get()
        except TimeoutError:
            return web.Response(status=204)
        if job.status != "IN_QUEUE":
            return web.Response(status=204)
        job.status = "IN_PROGRESS"
        await self.tell()
        return web.json_response({"id": job.id, **job.body})

    async def stopped(self, request):
        try:
            async with asyncio.timeout(POLL_S):
                return web.json_response({"jobsToStop": [await self.stops.get()]})
        except TimeoutError:
            return web.Response(status=204)

    async def done(self, request):
        body = await request.json()
        job = self.jobs[request.match_info["id"]]
        if body.get("status") == "IN_PROGRESS":
            job.on_the_way += 1
            await asyncio.sleep(self.slow_s)
            job.on_the_way -= 1
        else:
            job.overtaken = job.on_the_way > 0
        job.posts.append(body)
        if job.status not in {"CANCELLED", "TIMED_OUT"}:
            self.settle(job, body)
        await self.tell()
        return web.json_response({})

    def settle(self, job, body):
        """Believe the last post, even one that comes too late: so does RunPod."""
        job.result = {k: body[k] for k in ("output", "error") if k in body}
        if body.get("status") == "IN_PROGRESS":
            job.status = "IN_PROGRESS"
        else:
            job.status = "FAILED" if "error" in body else "COMPLETED"
            job.over.set()

    async def part(self, request):
        body = await request.text()
        assert len(body) < 1_000_000, "a chunk of a stream may have 1 MB"
        job = self.jobs[request.match_info["id"]]
        job.stream.append(await request.json())
        await self.tell()
        return web.json_response({})

    async def ping(self, request):
        self.pings.append(dict(request.query))
        await self.tell()
        return web.json_response({})

    async def tell(self):
        async with self.changed:
            self.changed.notify_all()

    # ---- the client's side

    async def run(self, request):
        body = await request.json()
        job = self.put(f"job-{next(self.ids)}-u1", body.pop("input"), **body)
        await self.tell()
        return web.json_response(job.public())

    async def status(self, request):
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return web.json_response({"error": "job not found"}, status=404)
        return web.json_response(job.public())

    async def cancel(self, request):
        job = self.jobs[request.match_info["id"]]
        self.stop(job)
        return web.json_response(job.public())

    async def health(self, request):
        def count(status):
            return sum(job.status == status for job in self.jobs.values())

        return web.json_response(
            {
                "jobs": {
                    "completed": count("COMPLETED"),
                    "failed": count("FAILED"),
                    "inProgress": count("IN_PROGRESS"),
                    "inQueue": count("IN_QUEUE"),
                    "retried": 0,
                },
                "workers": {"idle": 1, "running": count("IN_PROGRESS")},
            }
        )

    # ---- REST

    async def listed(self, request):
        return web.json_response(list(self.kept[request.match_info["kind"]].values()))

    async def shown(self, request):
        one = self.kept[request.match_info["kind"]].get(request.match_info["id"])
        if one is None:
            return web.json_response({"error": "not found"}, status=404)
        return web.json_response(one)

    async def made(self, request):
        one = {"id": f"id-{next(self.ids)}", "userId": "u", **await request.json()}
        self.kept[request.match_info["kind"]][one["id"]] = one
        return web.json_response(one)

    async def patched(self, request):
        one = self.kept[request.match_info["kind"]][request.match_info["id"]]
        one.update(await request.json())
        return web.json_response(one)

    @web.middleware
    async def gate(self, request, handler):
        """Ask clients for the key, and be out of order when told to."""
        client = request.path.startswith(("/v1/", "/v2/"))
        if client and request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": "unauthorized"}, status=401)
        if client and self.refusals:
            return web.json_response({"error": "busy"}, status=self.refusals.pop(0))
        return await handler(request)

    def application(self):
        app = web.Application(middlewares=[self.gate], client_max_size=20 << 20)
        kind = "/v1/{kind:templates|endpoints}"
        front = f"/v2/{ENDPOINT}"
        app.add_routes(
            [
                web.get("/job-take/{pod}", self.take),
                web.get("/job-stop/{pod}", self.stopped),
                web.post("/job-done/{pod}/{id}", self.done),
                web.post("/job-stream/{pod}/{id}", self.part),
                web.get("/ping/{pod}", self.ping),
                web.post(f"{front}/run", self.run),
                web.get(f"{front}/status/{{id}}", self.status),
                web.post(f"{front}/cancel/{{id}}", self.cancel),
                web.get("/v2/{endpoint}/health", self.health),
                web.get(kind, self.listed),
                web.post(kind, self.made),
                web.get(f"{kind}/{{id}}", self.shown),
                web.patch(f"{kind}/{{id}}", self.patched),
            ]
        )
        return app


@contextlib.asynccontextmanager
async def platform():
    """Serve the stand-in on a free port of loopback."""
    fake = FakeRunPod()
    runner = web.AppRunner(fake.application(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.url = "http://127.0.0.1:{}".format(*runner.addresses[0][1:2])
        yield fake
    finally:
        await runner.cleanup()

"""
The queue worker's handler: RunPod's jobs run as jobs of ours, and no other way.

The SDK's loop is not ours: the runtime lives in another thread, behind a portal, so
neither can hold up the other.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal

from common import strict_json
from common.errors import InvalidInput, ServiceError
from common.job import Job, Status
from common.jobs.intake import Submission
from common.runpod.buckets import Bucket
from common.runpod.delivery import deliver
from common.runpod.progress import Report
from common.runpod.settings import RunPod
from common.runtime import Runtime

log = logging.getLogger(__name__)

TELL_S = 1.0  #: between two updates; each is two requests to the platform
SAID_ERRORS = 8  #: fields of a refusal that are named
# Jobs that end so leave an engine that this worker cannot be sure of.
DEAD_ENGINE = frozenset({"engine_lost", "engine_unreachable"})

T = TypeVar("T")


class Handler:
    """What `runpod.serverless.start` is given, as `config`."""

    def __init__(
        self, runtime: Runtime, portal: BlockingPortal, env: RunPod, report: Report
    ) -> None:
        self._runtime = runtime
        self._portal = portal
        self._env = env
        self._report = report
        self.config: dict[str, Any] = {
            "handler": self.handle,
            # The SDK reads both anew: the first at each yield, the second at the end.
            "return_aggregate_stream": False,
            "refresh_worker": False,
        }

    async def handle(self, delivery: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the job as it goes on, and at last with its outputs, or an error."""
        self.config["return_aggregate_stream"] = False
        try:
            bucket = await self._bucket(delivery)
            spoilt = self._runtime.dispatcher.spoilt
            accepted = self._portal.start_task_soon(self._accept, delivery)
            self._free_if_left(accepted)
            job = await asyncio.shield(asyncio.wrap_future(accepted))
            while not job.status.terminal:
                told = await self._there(self._told, job)
                await self._report(delivery, told)
                yield told
                job = await self._there(self._runtime.desk.wait, job, TELL_S)
            if job.status is not Status.SUCCEEDED:
                dead = job.error is not None and job.error.code in DEAD_ENGINE
                if dead or self._runtime.dispatcher.spoilt != spoilt:
                    self.config["refresh_worker"] = True
                yield {"error": failure(job)}
                return
            told = await self._there(self._told, job)
            folder = self._runtime.files.job(job.id)
            done = await deliver(job, told["outputs"], folder, bucket)
        except ServiceError as error:
            yield {"error": refusal(error)}
            return
        except Exception:
            log.exception("RunPod job %s failed", delivery.get("id"))
            said = "the worker failed; its log has the details"
            yield {"error": _short(code="internal", message=said)}
            return
        # A piece of a stream may have 1 MB, a result ten times as much, and they are
        # one object: what is inline joins it when it has been streamed.
        told["outputs"] = done.outputs
        self.config["return_aggregate_stream"] = True
        yield told
        for output, data in zip(done.outputs, done.inline, strict=False):
            output["data"] = data

    async def _there(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run something in the runtime's own loop."""
        return await asyncio.wrap_future(self._portal.start_task_soon(work, *args))

    async def _bucket(self, delivery: dict[str, Any]) -> Bucket | None:
        if (config := delivery.get("s3Config")) is not None:
            hosts = frozenset(self._runtime.settings.input_allow_hosts)
            return await Bucket.of_request(config, hosts)
        return Bucket.of_environment(self._env)

    async def _accept(self, delivery: dict[str, Any]) -> Job:
        """
        Return the job of a delivery: the one it has already, if that may still do.

        The platform delivers a job again when a worker or a result was lost, and when
        a caller asks for another try of one that failed.
        """
        # Through text, so that it is read as strictly as a request's body.
        fields = strict_json.loads(json.dumps(delivery["input"]).encode())
        if not isinstance(fields, dict):
            raise InvalidInput.of("input", "must be an object")
        for number in count(1):
            key = f"runpod:{delivery['id']}:{number}"
            job = await self._runtime.intake.submit(Submission(fields, {}, key=key))
            if job.status is Status.SUCCEEDED or not job.status.terminal:
                break
        return job

    async def _told(self, job: Job) -> dict[str, Any]:
        """Return the job as callers see it, without links to an HTTP service."""
        told = self._runtime.ledger.view(job)
        del told["urls"]
        return told

    def _free_if_left(self, accepted: Future[Job]) -> None:
        """Cancel our job when the SDK gives up on its own, however that happens."""
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: self._leave(accepted))

    def _leave(self, accepted: Future[Job]) -> None:
        with suppress(RuntimeError):  # the runtime is closed already
            self._portal.start_task_soon(self._cancel_open, accepted)

    async def _cancel_open(self, accepted: Future[Job]) -> None:
        with suppress(ServiceError):  # it was never accepted, or the store is away
            job = await asyncio.wrap_future(accepted)
            if (live := self._runtime.ledger.live(job.id)) is not None:
                log.info("%s: canceled, since RunPod has given up on it", job.id)
                await self._runtime.desk.cancel(live)


def failure(job: Job) -> str:
    """Return why a job has no outputs, as one short JSON text."""
    if job.error is None:
        said = f"the job is {job.status.value}"
        return _short(code=job.status.value, message=said, job_id=job.id)
    return _short(**vars(job.error), job_id=job.id)


def refusal(error: ServiceError) -> str:
    """Return why a request was not taken, as one short JSON text."""
    fields = [one.as_dict() for one in error.errors[:SAID_ERRORS]]
    return _short(code=error.code, message=error.detail[:1000], errors=fields or None)


def _short(**said: object) -> str:
    kept = {name: value for name, value in said.items() if value is not None}
    return json.dumps(kept, ensure_ascii=False, default=str)

"""Jobs over HTTP: make, list, follow, cancel, retry, delete, download."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from fastapi import (
    APIRouter,
    Depends,
    Header,
    Query,
    Request,
    Response,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.requests import HTTPConnection

from common.api import body
from common.api.download import output_of
from common.api.schema import PROBLEMS, JobList, JobView, request_body
from common.errors import InvalidInput, NotFound, RateLimited
from common.job import Job, Status
from common.jobs.bus import Frame, Still
from common.jobs.intake import Submission
from common.runtime import Runtime

MAX_WAIT_S = 300
MAX_STREAMS = 2000
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

AN = {"video": "a video", "image": "an image"}

IdempotencyKey = Annotated[
    str | None,
    Header(description="Makes a retry safe: same key and body, same job."),
]
Prefer = Annotated[
    str | None,
    Header(
        description="`wait=60` answers when the job is over, or after so many seconds:"
        f" at most {MAX_WAIT_S}."
    ),
]
LastEventId = Annotated[
    str | None, Header(description="The last event's id that was seen: go on after it.")
]
Cursor = Annotated[
    str | None,
    Query(max_length=20, description="The `next_cursor` of the page before."),
]

T = TypeVar("T")

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])")
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


async def owner_of(http: HTTPConnection) -> str:  # not async = a thread each time
    """Return whose request this is, as the gate found."""
    owner: str = http.state.owner
    return owner


Owner = Annotated[str, Depends(owner_of)]


async def job_of(http: HTTPConnection, job_id: str, owner: Owner) -> Job:
    """
    Return the job that the address names.

    Raises:
        NotFound: there is none, or it is another's.
    """
    try:
        known = str(uuid.UUID(job_id))
    except ValueError:
        raise NotFound("there is no such job") from None
    runtime: Runtime = http.app.state.runtime
    return await runtime.ledger.get(known, owner)


AJob = Annotated[Job, Depends(job_of)]


async def a_stream(http: HTTPConnection) -> None:
    """
    Let one more watcher in.

    Raises:
        RateLimited: each holds a connection, and those are not endless.
    """
    runtime: Runtime = http.app.state.runtime
    if runtime.bus.watchers() >= MAX_STREAMS:
        raise RateLimited(f"{MAX_STREAMS} streams are open", retry_after_s=10)


def routes(runtime: Runtime) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["jobs"], responses=PROBLEMS)
    ledger = runtime.ledger
    desk = runtime.desk
    max_file_bytes = runtime.settings.max_upload_mb << 20
    root = runtime.settings.root_path

    async def generate(
        request: Request,
        owner: Owner,
        idempotency_key: IdempotencyKey = None,
        prefer: Prefer = None,
    ) -> Response:
        if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
            raise InvalidInput.of(
                "Idempotency-Key", "must be 1 to 255 printable ASCII characters"
            )
        fields, files = await body.read(
            request, runtime.service.request, max_file_bytes
        )
        sent = Submission(fields, files, owner, idempotency_key)
        job = await runtime.intake.submit(sent)
        return await answer(request, job, prefer)

    for path in ("/generate", *runtime.service.aliases):
        router.post(
            path,
            status_code=202,
            response_model=JobView,
            responses={200: {"description": "Done within `Prefer: wait`."}},
            openapi_extra=request_body(runtime.service),
            summary=f"Make {AN[runtime.service.kind]}",
            description="Hand in a request; the job is kept before this answers.",
        )(generate)

    async def answer(request: Request, job: Job, prefer: str | None) -> Response:
        """Return the job at once, or when it is over if the caller prefers to wait."""
        headers = {"Location": f"{root}/jobs/{job.id}"}
        if wait_s := preferred_wait_s(prefer):
            job = await while_connected(request, desk.wait(job, wait_s)) or job
            headers["Preference-Applied"] = f"wait={wait_s}"
        status = 200 if wait_s and job.status.terminal else 202
        return JSONResponse(ledger.view(job), status, headers)

    @router.get("/jobs", response_model=JobList)
    async def list_jobs(
        owner: Owner,
        status: Annotated[
            str | None, Query(description="One or more, comma-separated.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=200, description="Jobs of a page.")] = 50,
        cursor: Cursor = None,
    ) -> Response:
        """List your jobs, newest first."""
        before = number(cursor)
        if before is None and cursor is not None:
            raise InvalidInput.of("cursor", "is not one that this service gave")
        page = await runtime.store.page(
            owner, status=statuses(status), limit=limit, before=before
        )
        found = [ledger.view(ledger.current(job)) for job in page.jobs]
        more = None if page.next_cursor is None else str(page.next_cursor)
        return JSONResponse({"jobs": found, "next_cursor": more})

    @router.get("/jobs/{job_id}", response_model=JobView)
    async def get_job(job: AJob) -> Response:
        """Return the job as it stands."""
        return JSONResponse(ledger.view(job))

    @router.get(
        "/jobs/{job_id}/events",
        # Not EventSourceResponse: FastAPI would run two tasks for each watcher.
        response_class=Response,
        responses={
            200: {"content": {"text/event-stream": {}}},
            204: {"description": "`Last-Event-ID` is the end of the job."},
        },
        dependencies=[Depends(a_stream)],
    )
    async def events(job: AJob, last_event_id: LastEventId = None) -> Response:
        """Stream the job now and after each change, until it is over."""
        after = number(last_event_id)
        if job.status.terminal and job.version == after:
            return Response(status_code=204)  # tells a browser not to come again
        frames = event_stream(job, ledger.watch(job, after), root)
        return EventSourceResponse(frames, headers=UNBUFFERED)

    @router.websocket("/jobs/{job_id}/ws", dependencies=[Depends(a_stream)])
    async def socket(
        websocket: WebSocket, job: AJob, last_event_id: str | None = None
    ) -> None:
        await websocket.accept()
        frames = send_frames(websocket, job, number(last_event_id))
        with suppress(WebSocketDisconnect):  # the watcher went away; the job goes on
            over = await while_connected(websocket, frames)
            if over is not None:
                await websocket.close(1000 if over else 1012)  # 1012: we restart

    async def send_frames(websocket: WebSocket, job: Job, after: int | None) -> bool:
        """Send all changes; return whether the last was the end of the job."""
        over = False
        async for seen in ledger.watch(job, after):
            if isinstance(seen, Frame):
                text = f'{{"event":"job","id":{seen.version},"data":{seen.data}}}'
                await websocket.send_text(text)
                over = seen.terminal
            elif seen is not None:
                data = {"url": root + preview_url(job, seen)}
                await websocket.send_json(
                    {"event": "preview", "id": None, "data": data}
                )
        return over

    @router.get("/jobs/{job_id}/preview", response_class=Response)
    async def preview(job: AJob) -> Response:
        """Return the newest picture of a job that runs."""
        found = runtime.bus.preview(job.id)
        if found is None:
            raise NotFound("there is no preview yet, or the job is over")
        data, content_type = found
        headers = {"Cache-Control": "no-store"}
        return Response(data, media_type=content_type, headers=headers)

    @router.post("/jobs/{job_id}/cancel", response_model=JobView)
    async def cancel(job: AJob) -> Response:
        """Stop the job; one that waits never starts."""
        return JSONResponse(ledger.view(await desk.cancel(job)))

    @router.post("/jobs/{job_id}/retry", status_code=202, response_model=JobView)
    async def retry(
        request: Request,
        job: AJob,
        owner: Owner,
        prefer: Prefer = None,
    ) -> Response:
        """Make a new job of the same request."""
        return await answer(request, await desk.retry(job, owner), prefer)

    @router.delete("/jobs/{job_id}", status_code=204)
    async def delete(job: AJob) -> None:
        """Remove a job and its files; one that runs is canceled first."""
        await desk.delete(job)

    @router.head("/jobs/{job_id}/outputs/{name}", include_in_schema=False)
    @router.get("/jobs/{job_id}/outputs/{name}", response_class=FileResponse)
    async def output(job: AJob, name: str, request: Request) -> Response:
        """Download a file, whole or by ranges."""
        return await output_of(runtime, job, name, request)

    return router


async def while_connected(
    http: Request | WebSocket, work: Coroutine[Any, Any, T]
) -> T | None:
    """Return what the work returns; end it, with None, when the caller goes away."""

    async def gone() -> None:
        while not (await http.receive())["type"].endswith(".disconnect"):
            pass  # watchers have nothing to say

    tasks = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(done, asyncio.CancelledError):
        return None
    if isinstance(done, BaseException):
        raise done
    return done


async def event_stream(
    job: Job, changes: AsyncIterator[Frame | Still | None], root: str = ""
) -> AsyncIterator[bytes]:
    """Yield a job's changes as server-sent events, and a comment when it is quiet."""
    async for seen in changes:
        match seen:
            case Frame():
                yield event_of(seen)
            case Still():
                url = json.dumps({"url": root + preview_url(job, seen)})
                yield format_sse_event(event="preview", data_str=url)
            case None:
                yield KEEPALIVE_COMMENT


@lru_cache(maxsize=64)
def event_of(frame: Frame) -> bytes:
    """Return a change as one event: the same bytes for all who watch."""
    return format_sse_event(event="job", id=str(frame.version), data_str=frame.data)


def preview_url(job: Job, still: Still) -> str:
    """Return where the newest preview is; the number makes it a new address."""
    return f"/jobs/{job.id}/preview?n={still.number}"


def preferred_wait_s(prefer: str | None) -> int | None:
    """
    Return the seconds of `Prefer: wait=N` (RFC 7240), at most 300.

    >>> preferred_wait_s("respond-async, wait=10"), preferred_wait_s("handling=strict")
    (10, None)
    """
    found = _WAIT.search(prefer or "")
    return min(MAX_WAIT_S, int(found[1])) if found else None


def number(text: str | None) -> int | None:
    """Return a version or cursor that we gave; nonsense counts as none."""
    value = (text or "").strip()
    return int(value) if value.isdecimal() and len(value) < 19 else None


def statuses(text: str | None) -> tuple[Status, ...]:
    """
    Read the `status` filter.

    Raises:
        InvalidInput: naming the statuses that there are.
    """
    try:
        return tuple(Status(word.strip()) for word in (text or "").split(",") if word)
    except ValueError:
        names = ", ".join(Status)
        raise InvalidInput.of("status", "there is no such status", names) from None

"""Jobs over HTTP: make, list, follow, cancel, retry, delete, download."""

import re
import uuid
from collections.abc import AsyncIterator
from typing import Annotated

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
from fastapi.sse import EventSourceResponse, ServerSentEvent

from common.api import body
from common.api.schema import PROBLEMS, JobList, JobView, request_body
from common.errors import InvalidInput, NotFound
from common.job import Job, Status
from common.jobs.bus import Frame
from common.jobs.intake import Submission
from common.runtime import Runtime

MAX_WAIT_S = 300
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])")
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def owner_of(request: Request) -> str:
    """Return whose request this is, as the gate found."""
    owner: str = request.state.owner
    return owner


Owner = Annotated[str, Depends(owner_of)]


def known_id(job_id: str) -> str:
    """
    Return a job id in the one form we write.

    Raises:
        NotFound: it is not a UUID, so there can be no such job.
    """
    try:
        return str(uuid.UUID(job_id))
    except ValueError:
        raise NotFound("there is no such job") from None


def routes(runtime: Runtime) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["jobs"], responses=PROBLEMS)
    ledger = runtime.ledger
    desk = runtime.desk
    max_file_bytes = runtime.settings.max_upload_mb << 20

    async def job_of(job_id: str, owner: Owner) -> Job:
        return await ledger.get(known_id(job_id), owner)

    AJob = Annotated[Job, Depends(job_of)]  # noqa: N806 - a type

    @router.post(
        "/generate",
        status_code=202,
        response_model=JobView,
        responses={200: {"description": "Done within `Prefer: wait`."}},
        openapi_extra=request_body(runtime.service),
        summary=f"Make a {runtime.service.kind}",
    )
    async def generate(
        request: Request,
        owner: Owner,
        idempotency_key: Annotated[str | None, Header()] = None,
        prefer: Annotated[str | None, Header()] = None,
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
        return await answer(job, prefer)

    async def answer(job: Job, prefer: str | None) -> Response:
        """Return the job at once, or when it is over if the caller prefers to wait."""
        headers = {"Location": f"/jobs/{job.id}"}
        if wait_s := preferred_wait_s(prefer):
            job = await desk.wait(job, wait_s)
            headers["Preference-Applied"] = f"wait={wait_s}"
        status = 200 if wait_s and job.status.terminal else 202
        return JSONResponse(ledger.view(job), status, headers)

    @router.get("/jobs", response_model=JobList)
    async def list_jobs(
        owner: Owner,
        status: Annotated[
            str | None, Query(description="One or more, comma-separated.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str | None, Query(max_length=20)] = None,
    ) -> Response:
        if cursor is not None and not cursor.isdecimal():
            raise InvalidInput.of("cursor", "is not one that this service gave")
        page = await runtime.store.page(
            owner,
            status=statuses(status),
            limit=limit,
            before=None if cursor is None else int(cursor),
        )
        found = [ledger.view(ledger.current(job)) for job in page.jobs]
        more = None if page.next_cursor is None else str(page.next_cursor)
        return JSONResponse({"jobs": found, "next_cursor": more})

    @router.get("/jobs/{job_id}", response_model=JobView)
    async def get_job(job: AJob) -> Response:
        return JSONResponse(ledger.view(job))

    @router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
    async def events(
        job: AJob, last_event_id: Annotated[str | None, Header()] = None
    ) -> AsyncIterator[ServerSentEvent]:
        async for seen in ledger.watch(job, number(last_event_id)):
            if isinstance(seen, Frame):
                yield ServerSentEvent(
                    event="job", id=str(seen.version), raw_data=seen.data
                )
            else:
                url = f"/jobs/{job.id}/preview?n={seen.number}"
                yield ServerSentEvent(event="preview", data={"url": url})

    @router.websocket("/jobs/{job_id}/ws")
    async def socket(
        websocket: WebSocket, job_id: str, last_event_id: str | None = None
    ) -> None:
        try:
            job = await ledger.get(known_id(job_id), websocket.state.owner)
        except NotFound:
            await websocket.close(1008, "there is no such job")
            return
        await websocket.accept()
        try:
            async for seen in ledger.watch(job, number(last_event_id)):
                if isinstance(seen, Frame):
                    text = f'{{"event":"job","id":{seen.version},"data":{seen.data}}}'
                    await websocket.send_text(text)
                else:
                    url = f"/jobs/{job.id}/preview?n={seen.number}"
                    await websocket.send_json(
                        {"event": "preview", "id": None, "data": {"url": url}}
                    )
            await websocket.close()
        except (WebSocketDisconnect, RuntimeError):
            return  # the watcher went away; the job goes on

    @router.get("/jobs/{job_id}/preview", response_class=Response)
    async def preview(job: AJob) -> Response:
        found = runtime.bus.preview(job.id)
        if found is None:
            raise NotFound("there is no preview yet, or the job is over")
        data, content_type = found
        headers = {"Cache-Control": "no-store"}
        return Response(data, media_type=content_type, headers=headers)

    @router.post("/jobs/{job_id}/cancel", response_model=JobView)
    async def cancel(job: AJob) -> Response:
        return JSONResponse(ledger.view(await desk.cancel(job)))

    @router.post("/jobs/{job_id}/retry", status_code=202, response_model=JobView)
    async def retry(
        job: AJob, owner: Owner, prefer: Annotated[str | None, Header()] = None
    ) -> Response:
        return await answer(await desk.retry(job, owner), prefer)

    @router.delete("/jobs/{job_id}", status_code=204)
    async def delete(job: AJob) -> None:
        await desk.delete(job)

    @router.get("/jobs/{job_id}/outputs/{name}", response_class=FileResponse)
    async def output(job: AJob, name: str, request: Request) -> Response:
        return file_response(runtime, job, name, request)

    return router


def file_response(runtime: Runtime, job: Job, name: str, request: Request) -> Response:
    """Return a published file; only names in the job's own record exist."""
    for one in job.outputs:
        if name == one.name:
            tag, kind = f'"{one.sha256}"', one.content_type
        elif name == one.poster:
            tag, kind = f'"{one.sha256}-poster"', "image/jpeg"
        else:
            continue
        headers = {"ETag": tag, "Cache-Control": "private, max-age=86400, immutable"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        path = runtime.files.job(job.id) / name
        if not path.is_file() or path.is_symlink():
            raise NotFound("the file is gone")
        return FileResponse(
            path,
            media_type=kind,
            filename=f"{job.id}-{name}",
            content_disposition_type="inline",
            headers=headers,
        )
    raise NotFound("the job has no such output")


def preferred_wait_s(prefer: str | None) -> int | None:
    """
    Return the seconds of `Prefer: wait=N` (RFC 7240), at most 300.

    >>> preferred_wait_s("respond-async, wait=10"), preferred_wait_s("handling=strict")
    (10, None)
    """
    found = _WAIT.search(prefer or "")
    return min(MAX_WAIT_S, int(found[1])) if found else None


def number(last_event_id: str | None) -> int | None:
    """Return the version a watcher saw last; nonsense counts as none."""
    value = (last_event_id or "").strip()
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

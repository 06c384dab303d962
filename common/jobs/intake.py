"""
From a caller's fields to a job that is committed: checked, fetched, patched, stored.

A refusal at any step leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.errors import (
    InvalidInput,
    QueueFull,
    ShuttingDown,
)
from common.inputs.fetch import fetch
from common.inputs.media import KINDS, decode
from common.inputs.source import Inline, Source, UploadId, Url, parse
from common.job import Job
from common.jobs.dispatcher import Dispatcher
from common.jobs.files import Files
from common.jobs.ledger import Ledger, now
from common.jobs.store import Accepted, Key, Store
from common.jobs.supply import Supply
from common.jobs.uploads import Upload
from common.jobs.volume import Choices, check_weights, with_loras
from common.request import STAND_IN, MediaFacts, Request, as_said
from common.service import Service

# A picture of 16 megapixels takes 50 MB while it is decoded.
DECODERS = 2


@dataclass(frozen=True)
class Submission:
    """What a caller sent."""

    fields: Mapping[str, object]
    files: Mapping[str, bytes]  #: multipart parts, by field
    owner: str = ""
    key: str | None = None


@dataclass(frozen=True)
class FetchLimits:
    """What may be taken from outside."""

    max_bytes: int
    allow_hosts: frozenset[str]


class Intake:
    """Takes requests of one service."""

    def __init__(
        self,
        service: Service,
        *,
        ledger: Ledger,
        store: Store,
        files: Files,
        dispatcher: Dispatcher,
        engine_kind: str,
        queue_limit: int,
        limits: FetchLimits,
        choices: Choices,
        supply: Supply | None = None,
    ) -> None:
        self._service = service
        self._request = service.request
        self._ledger = ledger
        self._store = store
        self._files = files
        self._dispatcher = dispatcher
        self._engine_kind = engine_kind
        self._queue_limit = queue_limit
        self._limits = limits
        self._choices = choices
        self._supply = supply
        self._reserved = 0
        self._commits: set[asyncio.Task[Job]] = set()
        self._decoding = asyncio.Semaphore(DECODERS)

    async def _check_weights(self, request: Request) -> None:
        if self._supply is None:  # else what is absent is fetched while the job waits
            await check_weights(self._service, request, self._choices)

    async def submit(self, sent: Submission) -> Job:
        """
        Accept a request: the job is on disk when this returns.

        The same key and request give the same job. Raises ServiceError.
        """
        self._check_open()
        key = None
        if sent.key is not None:
            key = Key(sent.key, fingerprint(sent))
            if earlier := await self._store.by_key(sent.owner, key):
                return self._ledger.current(earlier)
        sent, said = self._own(sent)
        with as_said(said):
            return await self._submitted(sent, key)

    async def _submitted(self, sent: Submission, key: Key | None) -> Job:
        request = await with_loras(self._checked(sent), self._choices)
        await self._check_weights(request)
        self._check_room()
        self._reserved += 1
        try:
            return await self._accept(request, sent, key)
        finally:
            self._reserved -= 1

    async def checked(self, sent: Submission) -> Request:
        """
        Check a request as `submit` does, and keep nothing.

        No file is fetched or looked at, and those it must have may be left out.
        """
        sent, said = self._own(sent)
        with as_said(said):
            return await self._fit_to_run(sent)

    async def _fit_to_run(self, sent: Submission) -> Request:
        absent = {
            name: STAND_IN
            for name in self._request.media_fields()
            if self._request.model_fields[name].is_required()
            and name not in {*sent.fields, *sent.files}
        }
        full = replace(sent, fields={**absent, **sent.fields})
        request = await with_loras(self._checked(full), self._choices)
        for name in self._request.media_fields():
            value = sent.fields.get(name)
            if isinstance(value, str):
                match self._source(value, name):
                    case UploadId(id=upload_id):
                        await self._uploaded(upload_id, name, sent.owner)
        return request

    async def retry(self, job: Job, owner: str) -> Job:
        """Accept a job's request once more; its inputs are linked from the job."""
        self._check_open()
        self._check_room()
        request = self._request.accept(job.request)
        await self._check_weights(request)
        return await self._commit(request, owner, earlier=job.id)

    async def upload(self, data: bytes, owner: str) -> Upload:
        """Check and store a file for later requests, of a kind that they take."""
        if self._dispatcher.draining:
            raise ShuttingDown("the service is stopping", retry_after_s=30)
        kinds = {media.kind for media in self._request.media_fields().values()}
        upload, ours = await self._decoded(data, "file", kinds)
        await asyncio.to_thread(self._files.store_upload, upload.id, ours)
        try:
            await self._store.uploads.add(upload, owner)
        except BaseException:
            self._files.forget(uploads=[upload.id])
            raise
        return upload

    # ---- checks

    def _check_open(self) -> None:
        if self._dispatcher.draining:
            raise ShuttingDown("the service is stopping", retry_after_s=30)

    def _check_room(self) -> None:
        waiting = len(self._ledger.waiting) + self._reserved
        if waiting >= self._queue_limit:
            raise QueueFull(
                f"{waiting} jobs wait already; send it again later", retry_after_s=15
            )

    def _own(self, sent: Submission) -> tuple[Submission, dict[str, str]]:
        """Return what was sent under the fields' own names, and the aliases used."""
        fields, said = self._request.by_name(sent.fields)
        files, more = self._request.by_name(sent.files)
        return replace(sent, fields=fields, files=files), said | more

    def _checked(self, sent: Submission) -> Request:
        """Check all fields before anything is fetched or decoded."""
        media = self._request.media_fields()
        for name in sent.files:
            if name not in media:
                raise InvalidInput.of(name, "is not a file", "send it as a text part")
            if sent.fields.get(name) is not None:
                raise InvalidInput.of(name, "is given twice", "send one of them")
        for name in media:
            if isinstance(value := sent.fields.get(name), str):
                self._source(value, name)
        stand_ins = dict.fromkeys(sent.files, STAND_IN)
        return self._request.accept({**sent.fields, **stand_ins})

    # ---- files

    async def _accept(self, request: Request, sent: Submission, key: Key | None) -> Job:
        uploads: list[Upload] = []
        ids: dict[str, str] = {}
        facts: dict[str, MediaFacts] = {}
        try:
            for name in request.media_fields():
                value = sent.files.get(name, sent.fields.get(name))
                if value is None:
                    continue
                upload, own = await self._resolve(value, name, sent.owner)
                ids[name] = upload.id
                facts[name] = MediaFacts(upload.width, upload.height, upload.duration_s)
                if own:
                    uploads.append(upload)
            request = request.model_copy(update=ids).fitted(facts)
        except BaseException:
            self._files.forget(uploads=[upload.id for upload in uploads])
            raise
        return await self._commit(request, sent.owner, key=key, uploads=tuple(uploads))

    async def _resolve(
        self, value: object, field: str, owner: str
    ) -> tuple[Upload, bool]:
        """Return the stored upload for a value, and whether it was made just now."""
        data: bytes
        if isinstance(value, bytes):
            data = value
        else:
            match self._source(str(value), field):
                case UploadId(id=upload_id):
                    return await self._uploaded(upload_id, field, owner), False
                case Url(url=url):
                    data = await fetch(
                        url,
                        field=field,
                        max_bytes=self._limits.max_bytes,
                        allow_hosts=self._limits.allow_hosts,
                    )
                case Inline(data=inline):
                    data = inline
        upload, ours = await self._decoded(data, field, {self._kind(field)})
        await asyncio.to_thread(self._files.store_upload, upload.id, ours)
        return upload, True

    async def _uploaded(self, upload_id: str, field: str, owner: str) -> Upload:
        upload = await self._store.uploads.get(upload_id, owner)
        if upload is None:
            raise InvalidInput.of(
                field, "there is no such upload", "POST /uploads it again"
            )
        if upload.kind != (kind := self._kind(field)):
            raise InvalidInput.of(
                field, f"is an upload of another kind: {upload.kind}", f"send {kind}"
            )
        return upload

    def _kind(self, field: str) -> str:
        return self._request.media_fields()[field].kind

    def _source(self, value: str, field: str) -> Source:
        return parse(value, field=field, types=KINDS[self._kind(field)].types)

    async def _decoded(
        self, data: bytes, field: str, kinds: Collection[str]
    ) -> tuple[Upload, bytes]:
        """Decode and encode anew, so that ComfyUI only ever sees our bytes."""
        async with self._decoding:
            found = await asyncio.to_thread(decode, data, field, kinds)
        upload = Upload(
            id=str(uuid.uuid4()),
            kind=found.kind,
            content_type=found.content_type,
            size_bytes=len(found.data),
            width=found.width,
            height=found.height,
            duration_s=found.duration_s,
        )
        return upload, found.data

    async def _commit(
        self,
        request: Request,
        owner: str,
        *,
        key: Key | None = None,
        uploads: tuple[Upload, ...] = (),
        earlier: str | None = None,
    ) -> Job:
        """Commit a job; a caller who goes meanwhile does not leave it half done."""
        job_id = str(uuid.uuid4())
        work = asyncio.create_task(
            self._committed(job_id, request, owner, key, uploads, earlier)
        )
        self._commits.add(work)
        work.add_done_callback(self._commits.discard)
        try:
            return await asyncio.shield(work)
        except Exception:  # of a caller who went, the sweep removes what is left
            self._files.forget([job_id], [upload.id for upload in uploads])
            raise

    async def _committed(
        self,
        job_id: str,
        request: Request,
        owner: str,
        key: Key | None,
        uploads: tuple[Upload, ...],
        earlier: str | None,
    ) -> Job:
        media = request.media()
        for file in media:
            found = await asyncio.to_thread(
                self._files.give, job_id, file.upload_id, earlier
            )
            if not found:
                raise InvalidInput.of(file.field, "the file is gone", "send it again")
        job = Job(
            id=job_id,
            service=self._service.name,
            engine=self._engine_kind,
            request=request.model_dump(mode="json"),
            created_at=now(),
            priority=getattr(request, "priority", 3),
        )
        patched = self._service.apply(request)
        accepted = Accepted(job, patched, media, owner, key, uploads)
        stored = await self._ledger.add(accepted)
        if stored.id != job_id:  # another request with this key was faster
            self._files.forget([job_id], [upload.id for upload in uploads])
            return self._ledger.current(stored)
        self._ledger.waiting.put(job_id, job.priority)
        if self._supply is not None:
            self._supply.admit(job_id, patched)
        return stored


def fingerprint(sent: Submission) -> str:
    """Return what two sendings of one request have in common."""
    fields: dict[str, Any] = dict(sent.fields)
    for name, data in sent.files.items():
        fields[name] = {"sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()

"""
From a caller's fields to a job that is committed: checked, fetched, patched, stored.

A refusal at any step leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from common.errors import (
    InvalidInput,
    QueueFull,
    ShuttingDown,
    UnknownLora,
    UnsupportedMediaType,
)
from common.inputs.fetch import fetch
from common.inputs.image import decode
from common.inputs.source import Inline, UploadId, Url, parse
from common.job import Job
from common.jobs.dispatcher import Dispatcher
from common.jobs.files import Files
from common.jobs.ledger import Ledger, now
from common.jobs.store import Accepted, Key, Store, Upload
from common.request import Request
from common.workflow import Workflow

# Stands for a file while the other fields are checked; never stored.
PLACEHOLDER = str(uuid.UUID(int=0))

# A picture of 16 megapixels takes 50 MB while it is decoded.
DECODERS = 2

LORA_SUFFIX = ".safetensors"


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
        request: type[Request],
        workflow: Workflow,
        service: str,
        *,
        ledger: Ledger,
        store: Store,
        files: Files,
        dispatcher: Dispatcher,
        engine_kind: str,
        queue_limit: int,
        limits: FetchLimits,
        loras: Callable[[], Awaitable[tuple[str, ...] | None]],
    ) -> None:
        self._request = request
        self._workflow = workflow
        self._service = service
        self._ledger = ledger
        self._store = store
        self._files = files
        self._dispatcher = dispatcher
        self._engine_kind = engine_kind
        self._queue_limit = queue_limit
        self._limits = limits
        self._loras = loras
        self._reserved = 0
        self._decoding = asyncio.Semaphore(DECODERS)

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
        request = self._checked(sent)
        request = await self._with_loras(request)
        self._check_room()
        self._reserved += 1
        try:
            job_id = str(uuid.uuid4())
            try:
                return await self._accept(job_id, request, sent, key)
            except BaseException:
                self._files.forget([job_id])
                raise
        finally:
            self._reserved -= 1

    async def retry(self, job: Job, owner: str) -> Job:
        """Accept a job's request once more; its inputs are linked from the job."""
        self._check_open()
        self._check_room()
        request = self._request.accept(job.request)
        return await self._commit(str(uuid.uuid4()), request, owner, earlier=job.id)

    async def upload(self, data: bytes, owner: str) -> Upload:
        """Check and store a picture for later requests."""
        if self._dispatcher.draining:
            raise ShuttingDown("the service is stopping", retry_after_s=30)
        upload, png = await self._picture(data, "file")
        await asyncio.to_thread(self._files.store_upload, upload.id, png)
        try:
            await self._store.add_upload(upload, owner)
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
                parse(value, field=name)
        stand_ins = dict.fromkeys(sent.files, PLACEHOLDER)
        return self._request.accept({**sent.fields, **stand_ins})

    async def _with_loras(self, request: Request) -> Request:
        """Replace each LoRA's name by the file's, as the engine lists it."""
        wanted = getattr(request, "loras", [])
        if not wanted:
            return request
        installed = await self._loras()
        found = [
            lora.model_copy(update={"name": lookup(lora.name, installed, index)})
            for index, lora in enumerate(wanted)
        ]
        return request.model_copy(update={"loras": found})

    # ---- files

    async def _accept(
        self, job_id: str, request: Request, sent: Submission, key: Key | None
    ) -> Job:
        uploads: list[Upload] = []
        ids: dict[str, str] = {}
        try:
            for name in request.media_fields():
                value = sent.files.get(name) or sent.fields.get(name)
                if value is None:
                    continue
                upload, own = await self._resolve(value, name, sent.owner)
                ids[name] = upload.id
                if own:
                    uploads.append(upload)
            request = request.model_copy(update=ids)
            return await self._commit(
                job_id, request, sent.owner, key=key, uploads=tuple(uploads)
            )
        except BaseException:
            self._files.forget(uploads=[upload.id for upload in uploads])
            raise

    async def _resolve(
        self, value: object, field: str, owner: str
    ) -> tuple[Upload, bool]:
        """Return the stored upload for a value, and whether it was made just now."""
        data: bytes
        if isinstance(value, bytes):
            data = value
        else:
            match parse(str(value), field=field):
                case UploadId(id=upload_id):
                    upload = await self._store.upload(upload_id, owner)
                    if upload is None:
                        raise InvalidInput.of(
                            field, "there is no such upload", "POST /uploads it again"
                        )
                    return upload, False
                case Url(url=url):
                    data = await fetch(
                        url,
                        field=field,
                        max_bytes=self._limits.max_bytes,
                        allow_hosts=self._limits.allow_hosts,
                    )
                case Inline(data=inline):
                    data = inline
        upload, png = await self._picture(data, field)
        await asyncio.to_thread(self._files.store_upload, upload.id, png)
        return upload, True

    async def _picture(self, data: bytes, field: str) -> tuple[Upload, bytes]:
        """Decode and encode anew, so that ComfyUI only ever sees our bytes."""
        if not data:
            raise UnsupportedMediaType(f"{field}: the file is empty")
        async with self._decoding:
            picture = await asyncio.to_thread(decode, data, field=field)
        upload = Upload(
            id=str(uuid.uuid4()),
            kind="image",
            content_type="image/png",
            size_bytes=len(picture.data),
            width=picture.width,
            height=picture.height,
        )
        return upload, picture.data

    async def _commit(
        self,
        job_id: str,
        request: Request,
        owner: str,
        *,
        key: Key | None = None,
        uploads: tuple[Upload, ...] = (),
        earlier: str | None = None,
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
            service=self._service,
            engine=self._engine_kind,
            request=request.model_dump(mode="json"),
            created_at=now(),
            priority=getattr(request, "priority", 3),
        )
        patched = request.apply(self._workflow)
        accepted = Accepted(job, patched, media, owner, key, uploads)
        stored = await self._ledger.add(accepted)
        if stored.id != job_id:  # another request with this key was faster
            self._files.forget([job_id], [upload.id for upload in uploads])
            return self._ledger.current(stored)
        self._ledger.waiting.put(job_id, job.priority)
        return stored


def fingerprint(sent: Submission) -> str:
    """Return what two sendings of one request have in common."""
    fields: dict[str, Any] = dict(sent.fields)
    for name, data in sent.files.items():
        fields[name] = {"sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def lookup(name: str, installed: tuple[str, ...] | None, index: int) -> str:
    """
    Return the one installed file that `name` means, with or without its suffix.

    Only safetensors: the other kinds that ComfyUI lists run code when they are loaded.
    While no engine answers (None), the name is ComfyUI's to judge.

    Raises:
        UnknownLora: none; the hint lists near names.
    """
    stem = name.removesuffix(LORA_SUFFIX)
    if installed is None:
        return stem + LORA_SUFFIX
    by_stem = {
        file.removesuffix(LORA_SUFFIX).replace("\\", "/").lower(): file
        for file in installed
        if file.endswith(LORA_SUFFIX)
    }
    stem = stem.replace("\\", "/").lower()
    if stem in by_stem:
        return by_stem[stem]
    near = get_close_matches(stem, by_stem, n=3, cutoff=0.5)
    names = [by_stem[one] for one in near] or installed[:10]
    hint = ("did you mean " if near else "installed: ") + ", ".join(names)
    raise UnknownLora.of(f"loras.{index}.name", "no such LoRA is installed", hint)

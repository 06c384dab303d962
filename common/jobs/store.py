"""
The store: jobs, idempotency keys and uploads in SQLite or PostgreSQL.

A write returns after its commit is on disk (SQLite: WAL, synchronous=FULL). Writes that
wait together share one commit, so that a burst costs one fsync and not one each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from common.errors import IdempotencyConflict, NoSpace, ServiceError, StoreUnavailable
from common.job import TERMINAL, Job, Status
from common.jobs import document
from common.jobs.database import InUse, Work, connect
from common.jobs.tables import NewerSchema, jobs, keys, upgrade, uploads
from common.request import MediaInput
from common.workflow import Workflow

T = TypeVar("T")
BATCH = 64  # writes in one transaction
KEY_LIFE_S = 24 * 3600  # API.md: idempotency keys are kept 24 h


class Unusable(Exception):
    """The database cannot be opened; the message says why and what to do."""


class Damaged(Exception):
    """The database file has broken pages."""


@dataclass(frozen=True)
class Upload:
    """A file that a caller sent; `path` of it is the upload store's business."""

    id: str
    kind: str
    content_type: str
    size_bytes: int
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class Key:
    """An idempotency key, and what it was used for."""

    key: str
    fingerprint: str  #: sha256 of the request's fields


@dataclass(frozen=True)
class Accepted:
    """Everything that is committed when a job is accepted."""

    job: Job
    workflow: Workflow
    media: tuple[MediaInput, ...] = ()
    owner: str = ""
    key: Key | None = None
    uploads: tuple[Upload, ...] = ()  #: files that came inside the request


@dataclass(frozen=True)
class Page:
    """Some jobs, newest first, and where the next page begins."""

    jobs: tuple[Job, ...]
    next_cursor: int | None


@dataclass
class _Write:
    work: Work[Any]
    done: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Clock(Protocol):
    """Where the time of day comes from."""

    def __call__(self) -> datetime:
        """Return the present moment in UTC."""


_COLUMNS = ("status", "version", "created_s", "completed_s", "document")
_SAVE = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.version < bindparam("newer"))
    .values({name: bindparam(name) for name in _COLUMNS})
)


class Store:
    """One database, with one writer."""

    def __init__(self, url: str, now: Clock) -> None:
        self._database = connect(url)
        self._now = now
        self._writes: asyncio.Queue[_Write] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """
        Check the database, bring it up to date and start the writer.

        Raises:
            Unusable: it is corrupt, newer than this code, or cannot be reached.
        """
        try:
            await self._database.claim()
            await self._database.write(_prepare)
        except (SQLAlchemyError, NewerSchema, Damaged, InUse, OSError) as error:
            await self._database.aclose()
            said = _cause(error) if isinstance(error, SQLAlchemyError) else str(error)
            raise Unusable(f"the job store cannot be opened: {said}") from error
        self._writer = asyncio.create_task(self._write_for_ever(), name="store writer")

    async def aclose(self) -> None:
        """Finish what was queued and close every connection."""
        if self._writer is not None:
            await self._writes.join()
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._database.aclose()

    # ---- jobs

    async def add(self, accepted: Accepted) -> Job:
        """
        Commit a new job and return it; an earlier one if the key was used for it.

        Raises:
            IdempotencyConflict: the key was used for another request.
        """
        job = accepted.job
        row = {
            "id": job.id,
            "owner": accepted.owner,
            "workflow": json.dumps(accepted.workflow.nodes, ensure_ascii=False),
            "media": json.dumps([vars(m) for m in accepted.media]),
            **_columns(job),
        }

        def work(connection: Connection) -> None:
            connection.execute(insert(jobs), row)
            if accepted.key is not None:
                values = {
                    "owner": accepted.owner,
                    "key": accepted.key.key,
                    "fingerprint": accepted.key.fingerprint,
                    "job_id": job.id,
                    "created_s": job.created_at.timestamp(),
                }
                connection.execute(insert(keys), values)
            for upload in accepted.uploads:
                connection.execute(
                    insert(uploads), self._upload_row(upload, accepted.owner, job.id)
                )

        try:
            await self._write(work)
        except IntegrityError:
            if accepted.key is None:
                raise
            earlier = await self.by_key(accepted.owner, accepted.key)
            if earlier is not None:
                return earlier
            await self.forget_keys()  # it is there, but past its day
            await self._write(work)
        return job

    async def by_key(self, owner: str, key: Key) -> Job | None:
        """
        Return the job that this key was used for.

        Raises:
            IdempotencyConflict: it was used for another request.
        """
        since = self._now().timestamp() - KEY_LIFE_S
        query = (
            select(keys.c.fingerprint, jobs.c.document)
            .join(jobs, jobs.c.id == keys.c.job_id)
            .where(keys.c.owner == owner, keys.c.key == key.key)
            .where(keys.c.created_s > since)
        )
        found = await self._rows(query)
        if not found:
            return None
        if found[0]["fingerprint"] != key.fingerprint:
            raise IdempotencyConflict(
                "this Idempotency-Key was used with another request:"
                " use a new key, or send the same request"
            )
        return document.load(found[0]["document"])

    async def save(self, job: Job) -> None:
        """Commit a job's new state; a state that is older than the row is dropped."""
        values = {**_columns(job), "job": job.id, "newer": job.version}
        await self._write(lambda connection: connection.execute(_SAVE, values))

    async def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """Return a job; with `owner`, only if it is theirs."""
        query = select(jobs.c.document).where(jobs.c.id == job_id)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        found = await self._rows(query)
        return document.load(found[0]["document"]) if found else None

    async def work_of(self, job_id: str) -> tuple[Workflow, tuple[MediaInput, ...]]:
        """Return the workflow the job was accepted with, and the files it needs."""
        query = select(jobs.c.workflow, jobs.c.media).where(jobs.c.id == job_id)
        row = (await self._rows(query))[0]
        media = tuple(MediaInput(**m) for m in json.loads(row["media"]))
        return Workflow(json.loads(row["workflow"])), media

    async def page(
        self,
        owner: str,
        *,
        status: Iterable[Status] = (),
        limit: int = 50,
        before: int | None = None,
    ) -> Page:
        """Return up to `limit` jobs of `owner`, newest first, older than `before`."""
        query = select(jobs.c.seq, jobs.c.document).where(jobs.c.owner == owner)
        if wanted := [s.value for s in status]:
            query = query.where(jobs.c.status.in_(wanted))
        if before is not None:
            query = query.where(jobs.c.seq < before)
        found = await self._rows(query.order_by(jobs.c.seq.desc()).limit(limit + 1))
        more = found[limit - 1]["seq"] if len(found) > limit else None
        loaded = tuple(document.load(row["document"]) for row in found[:limit])
        return Page(loaded, more)

    async def newest(self, status: Status, limit: int) -> list[Job]:
        """Return the newest jobs of everybody that have this status."""
        query = (
            select(jobs.c.document)
            .where(jobs.c.status == status.value)
            .order_by(jobs.c.seq.desc())
            .limit(limit)
        )
        return [document.load(row["document"]) for row in await self._rows(query)]

    async def open_jobs(self) -> list[tuple[str, Job]]:
        """Return (owner, job) of each job that is not over, oldest first."""
        final = [status.value for status in TERMINAL]
        query = (
            select(jobs.c.owner, jobs.c.document)
            .where(jobs.c.status.not_in(final))
            .order_by(jobs.c.seq)
        )
        rows = await self._rows(query)
        return [(row["owner"], document.load(row["document"])) for row in rows]

    async def ended_before(self, moment: float, limit: int = 500) -> list[str]:
        """Return ids of jobs that were over before `moment` (Unix seconds)."""
        query = select(jobs.c.id).where(jobs.c.completed_s < moment).limit(limit)
        return [row["id"] for row in await self._rows(query)]

    async def forget(self, job_ids: Sequence[str]) -> list[str]:
        """Remove jobs with their keys and own uploads; return those uploads' ids."""

        def work(connection: Connection) -> list[str]:
            own = select(uploads.c.id).where(uploads.c.job_id.in_(job_ids))
            gone = list(connection.execute(own).scalars())
            for table, column in (
                (uploads, uploads.c.job_id),
                (keys, keys.c.job_id),
                (jobs, jobs.c.id),
            ):
                connection.execute(delete(table).where(column.in_(job_ids)))
            return gone

        return await self._write(work)

    async def forget_keys(self) -> None:
        """Remove idempotency keys that are past their 24 hours."""
        since = self._now().timestamp() - KEY_LIFE_S
        old = delete(keys).where(keys.c.created_s < since)
        await self._write(lambda connection: connection.execute(old))

    async def counts(self) -> dict[str, int]:
        """Return how many jobs have each status."""
        query = select(jobs.c.status, func.count().label("n")).group_by(jobs.c.status)
        return {row["status"]: row["n"] for row in await self._rows(query)}

    # ---- uploads

    async def add_upload(self, upload: Upload, owner: str) -> None:
        """Commit an upload whose file is in place."""
        row = self._upload_row(upload, owner, None)
        await self._write(lambda c: c.execute(insert(uploads), row))

    async def upload(self, upload_id: str, owner: str) -> Upload | None:
        """Return an upload of this owner."""
        query = select(uploads).where(uploads.c.id == upload_id)
        found = await self._rows(query.where(uploads.c.owner == owner))
        if not found:
            return None
        return Upload(**document.known(Upload, dict(found[0])))

    async def forget_uploads(self, moment: float) -> list[str]:
        """Remove uploads of no job that came before `moment`; return their ids."""
        old: ColumnElement[bool] = and_(
            uploads.c.created_s < moment, uploads.c.job_id.is_(None)
        )

        def work(connection: Connection) -> list[str]:
            gone = list(connection.execute(select(uploads.c.id).where(old)).scalars())
            connection.execute(delete(uploads).where(old))
            return gone

        return await self._write(work)

    async def known_ids(self) -> tuple[set[str], set[str]]:
        """Return the ids of all jobs and of all uploads, to tell orphaned files."""
        job_rows = await self._rows(select(jobs.c.id))
        upload_rows = await self._rows(select(uploads.c.id))
        return {r["id"] for r in job_rows}, {r["id"] for r in upload_rows}

    async def alive(self) -> bool:
        """Tell whether the database answers."""
        try:
            await self._rows(select(1))
        except ServiceError:
            return False
        return True

    # ---- the writer

    async def _rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        try:
            return await self._database.read(
                lambda connection: connection.execute(query).mappings().all()
            )
        except SQLAlchemyError as error:
            raise _translated(error) from error

    async def _write(self, work: Work[T]) -> T:
        write = _Write(work)
        self._writes.put_nowait(write)
        try:
            result: T = await asyncio.shield(write.done)
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise _translated(error) from error
        return result

    async def _write_for_ever(self) -> None:
        while True:
            batch = [await self._writes.get()]
            while not self._writes.empty() and len(batch) < BATCH:
                batch.append(self._writes.get_nowait())
            await self._commit(batch)
            for _ in batch:
                self._writes.task_done()

    async def _commit(self, batch: list[_Write]) -> None:
        """Run a batch in one transaction; if it fails, each in its own."""
        try:
            results = await self._database.write(
                lambda connection: [write.work(connection) for write in batch]
            )
        except Exception as error:  # noqa: BLE001 - goes to who waits for the write
            if len(batch) > 1:
                for write in batch:
                    await self._commit([write])
            elif not batch[0].done.done():
                batch[0].done.set_exception(error)
            return
        for write, result in zip(batch, results, strict=True):
            if not write.done.done():
                write.done.set_result(result)

    def _upload_row(
        self, upload: Upload, owner: str, job_id: str | None
    ) -> dict[str, object]:
        created = self._now().timestamp()
        return {**vars(upload), "owner": owner, "job_id": job_id, "created_s": created}


def _prepare(connection: Connection) -> None:
    """Refuse a file with broken pages before anything is written; then upgrade."""
    if connection.dialect.name == "sqlite":
        verdict = connection.execute(text("PRAGMA quick_check(1)")).scalar()
        if verdict != "ok":
            raise Damaged(
                f"it is damaged ({verdict}); restore a backup, or move the file away"
                " to start with an empty one"
            )
    upgrade(connection)


def _columns(job: Job) -> dict[str, object]:
    """Return what the row says beside the document, to find it by."""
    return {
        "status": job.status.value,
        "version": job.version,
        "created_s": job.created_at.timestamp(),
        "completed_s": job.completed_at and job.completed_at.timestamp(),
        "document": document.dump(job),
    }


def _translated(error: SQLAlchemyError) -> ServiceError:
    """Say a database's trouble in our own terms."""
    cause = _cause(error)
    if "disk is full" in cause or "No space left" in cause or "DiskFull" in cause:
        return NoSpace("the disk of the job store is full", retry_after_s=30)
    return StoreUnavailable("the job store does not answer", retry_after_s=5)


def _cause(error: SQLAlchemyError) -> str:
    return str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__

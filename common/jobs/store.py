"""The store: jobs and idempotency keys in SQLite or PostgreSQL, and the uploads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from common.errors import IdempotencyConflict
from common.job import TERMINAL, Job, Status
from common.jobs import document
from common.jobs.commits import Commits
from common.jobs.database import connect
from common.jobs.tables import jobs, keys, uploads
from common.jobs.uploads import Clock, Upload, Uploads, take_out
from common.request import MediaInput
from common.workflow import Workflow

KEY_LIFE_S = 24 * 3600  # API.md: idempotency keys are kept 24 h


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


_COLUMNS = ("status", "version", "created_s", "completed_s", "document")
_SAVE = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.version < bindparam("newer"))
    .values({name: bindparam(name) for name in _COLUMNS})
)


class Store:
    """What is kept of jobs; of one database, with one writer."""

    def __init__(self, url: str, now: Clock) -> None:
        self._database = connect(url)
        self._commits = Commits(self._database)
        self._rows, self._write = self._commits.rows, self._commits.write
        self._now = now
        self.uploads = Uploads(self._commits, now)

    async def open(self) -> None:
        """
        Check the database, bring it up to date and start the writer.

        Raises:
            Unusable: it is corrupt, newer than this code, or cannot be reached.
        """
        await self._commits.open()

    async def aclose(self) -> None:
        """Finish what was queued and close every connection."""
        await self._commits.aclose()

    async def alive(self) -> bool:
        """Tell whether the database answers."""
        return await self._commits.alive()

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
                self.uploads.insert(connection, upload, accepted.owner, job.id)

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
            gone = take_out(connection, uploads.c.job_id.in_(job_ids))
            connection.execute(delete(keys).where(keys.c.job_id.in_(job_ids)))
            connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))
            return gone

        return await self._write(work)

    async def forget_keys(self) -> None:
        """Remove idempotency keys that are past their 24 hours."""
        since = self._now().timestamp() - KEY_LIFE_S
        old = delete(keys).where(keys.c.created_s < since)
        await self._write(lambda connection: connection.execute(old))

    async def known_ids(self) -> tuple[set[str], set[str]]:
        """Return the ids of all jobs and of all uploads, to tell orphaned files."""
        job_rows = await self._rows(select(jobs.c.id))
        upload_rows = await self._rows(select(uploads.c.id))
        return {r["id"] for r in job_rows}, {r["id"] for r in upload_rows}


def _columns(job: Job) -> dict[str, object]:
    """Return what the row says beside the document, to find it by."""
    return {
        "status": job.status.value,
        "version": job.version,
        "created_s": job.created_at.timestamp(),
        "completed_s": job.completed_at and job.completed_at.timestamp(),
        "document": document.dump(job),
    }

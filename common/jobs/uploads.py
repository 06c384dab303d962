"""What the store keeps of uploads: kind, size and owner. The files lie elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from common.jobs import document
from common.jobs.commits import Commits
from common.jobs.tables import uploads


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


class Clock(Protocol):
    """Where the time of day comes from."""

    def __call__(self) -> datetime:
        """Return the present moment in UTC."""


class Uploads:
    """The uploads of one store."""

    def __init__(self, commits: Commits, now: Clock) -> None:
        self._commits = commits
        self._now = now

    async def add(self, upload: Upload, owner: str) -> None:
        """Commit an upload whose file is in place."""
        await self._commits.write(lambda c: self.insert(c, upload, owner, None))

    async def get(self, upload_id: str, owner: str) -> Upload | None:
        """Return an upload of this owner."""
        query = select(uploads).where(uploads.c.id == upload_id)
        found = await self._commits.rows(query.where(uploads.c.owner == owner))
        if not found:
            return None
        return Upload(**document.known(Upload, dict(found[0])))

    async def forget(self, moment: float) -> list[str]:
        """Remove uploads of no job that came before `moment`; return their ids."""
        old = and_(uploads.c.created_s < moment, uploads.c.job_id.is_(None))
        return await self._commits.write(lambda c: take_out(c, old))

    def insert(
        self, connection: Connection, upload: Upload, owner: str, job_id: str | None
    ) -> None:
        """Write a row; with `job_id`, of a file that came inside that job's request."""
        created = self._now().timestamp()
        row = {**vars(upload), "owner": owner, "job_id": job_id, "created_s": created}
        connection.execute(insert(uploads), row)


def take_out(connection: Connection, which: ColumnElement[bool]) -> list[str]:
    """Remove uploads; return their ids."""
    gone = list(connection.execute(select(uploads.c.id).where(which)).scalars())
    connection.execute(delete(uploads).where(which))
    return gone

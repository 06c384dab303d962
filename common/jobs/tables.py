"""
The tables, and the steps that bring an older database up to date.

Steps only add, so that a release can be taken back as long as no step lies between.
A database that is newer than this code is refused, never touched.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    insert,
    select,
    update,
)

metadata = MetaData()

schema = Table("wan_schema", metadata, Column("version", Integer, nullable=False))

# `seq` orders jobs by acceptance; times of day may jump.
jobs = Table(
    "jobs",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("completed_s", Float),
    Column("document", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("media", Text, nullable=False),
    Index("jobs_by_owner", "owner", "seq"),
    Index("jobs_by_status", "status", "seq"),
    Index("jobs_by_end", "completed_s"),
    sqlite_autoincrement=True,
)

keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("created_s", Float, nullable=False),
    UniqueConstraint("owner", "key"),
    Index("keys_by_age", "created_s"),
    Index("keys_by_job", "job_id"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("duration_s", Float),
    Column("created_s", Float, nullable=False),
    # Set for a file that came inside a job's own request: it goes with the job.
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE")),
    Index("uploads_by_age", "created_s"),
    Index("uploads_by_job", "job_id"),
)

Step = Callable[[Connection], object]

# STEPS[n] brings a database of version n to n + 1.
STEPS: tuple[Step, ...] = (metadata.create_all,)


class NewerSchema(Exception):
    """The database was written by a newer release."""


def upgrade(connection: Connection) -> None:
    """
    Bring the database up to date, in the caller's transaction.

    Raises:
        NewerSchema: it is ahead of this code; nothing was changed.
    """
    schema.create(connection, checkfirst=True)
    found = connection.execute(select(schema.c.version)).scalar()
    version = found or 0
    if version > len(STEPS):
        raise NewerSchema(
            f"the database has schema {version}, this release knows {len(STEPS)}:"
            " run the newer release, or start with another data folder"
        )
    for step in STEPS[version:]:
        step(connection)
    statement = insert(schema) if found is None else update(schema)
    connection.execute(statement.values(version=len(STEPS)))

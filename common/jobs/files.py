"""
Where the files of jobs and uploads lie. No caller's string ever becomes a path.

    <data>/jobs/<job id>/        inputs, outputs and posters of one job
    <data>/uploads/<upload id>   files that wait to be used
    <data>/tmp/                  files on their way; a sweep removes what is left
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from common.disk import atomic_write, link_or_copy


class Files:
    """The folders of one service's data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._jobs = root / "jobs"
        self._uploads = root / "uploads"
        self._tmp = root / "tmp"

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self._jobs, self._uploads, self._tmp):
            folder.mkdir(parents=True, exist_ok=True)

    def job(self, job_id: str) -> Path:
        """Return a job's folder, which may not exist."""
        return self._jobs / str(uuid.UUID(job_id))

    def input(self, job_id: str, upload_id: str) -> Path:
        """Return a job's own copy of one of its inputs."""
        return self.job(job_id) / f"input-{uuid.UUID(upload_id)}"

    def upload(self, upload_id: str) -> Path:
        """Return where an upload lies."""
        return self._uploads / str(uuid.UUID(upload_id))

    def incoming(self) -> Path:
        """Return a fresh path for a file that is on its way."""
        return self._tmp / uuid.uuid4().hex

    def store_upload(self, upload_id: str, data: bytes) -> None:
        """Put an upload in place, whole or not at all."""
        atomic_write(self.upload(upload_id), data)

    def give(self, job_id: str, upload_id: str, earlier_job: str | None = None) -> bool:
        """
        Give a job its own link to an upload, so that it outlives the upload.

        A retried job takes it from the earlier one when the upload is gone. Returns
        whether the file was found.
        """
        sources = [self.upload(upload_id)]
        if earlier_job is not None:
            sources.append(self.input(earlier_job, upload_id))
        target = self.input(job_id, upload_id)
        for source in sources:
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(source, target)
                return True
        return False

    def forget(self, job_ids: Iterable[str] = (), uploads: Iterable[str] = ()) -> None:
        """Remove the files of jobs and uploads; absent ones are fine."""
        for job_id in job_ids:
            shutil.rmtree(self.job(job_id), ignore_errors=True)
        for upload_id in uploads:
            self.upload(upload_id).unlink(missing_ok=True)

    def sweep(self, jobs: set[str], uploads: set[str], older_than_s: float) -> int:
        """
        Remove what no row knows and is older than `older_than_s`; return how many.

        Such files are left by a crash between writing a file and committing its row.
        """
        limit = time.time() - older_than_s
        orphans = [p for p in self._jobs.iterdir() if p.name not in jobs]
        orphans += [p for p in self._uploads.iterdir() if p.name not in uploads]
        orphans += list(self._tmp.iterdir())
        swept = 0
        for path in orphans:
            with suppress(FileNotFoundError):  # whoever wrote it is done with it
                if path.lstat().st_mtime >= limit:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
                swept += 1
        return swept

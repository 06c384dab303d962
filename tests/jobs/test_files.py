import os
import time
import uuid
from pathlib import Path

import pytest

from common.jobs.files import Files

JOB, UPLOAD = str(uuid.uuid4()), str(uuid.uuid4())


@pytest.fixture
def files(tmp_path):
    files = Files(tmp_path)
    files.prepare()
    return files


@pytest.mark.parametrize("evil", ["../x", "/etc/passwd", "..", "a/b", ""])
def test_only_ids_become_paths(files, evil):
    """Whatever a caller sends, nothing outside the folders can be named."""
    for way in (files.job, files.upload):
        with pytest.raises(ValueError, match="UUID"):
            way(evil)


def test_a_job_has_its_own_link_to_its_inputs(files):
    """It runs although the upload was removed, and so does a retry of it."""
    files.store_upload(UPLOAD, b"png")
    assert files.give(JOB, UPLOAD)
    files.forget(uploads=[UPLOAD])
    retry = str(uuid.uuid4())

    assert files.input(JOB, UPLOAD).read_bytes() == b"png"
    assert not files.give(retry, UPLOAD)
    assert files.give(retry, UPLOAD, earlier_job=JOB)
    assert files.input(retry, UPLOAD).read_bytes() == b"png"


def test_forgetting_takes_everything(files):
    """Absent files are fine."""
    files.store_upload(UPLOAD, b"png")
    files.give(JOB, UPLOAD)
    files.forget([JOB, str(uuid.uuid4())], [UPLOAD])

    assert not files.job(JOB).exists()
    assert not files.upload(UPLOAD).exists()


def test_a_sweep_removes_old_orphans_only(files):
    """What has a row stays, and what may just be on its way."""
    orphan, young = str(uuid.uuid4()), str(uuid.uuid4())
    for job_id in (JOB, orphan, young):
        files.job(job_id).mkdir()
    stray = files.incoming()
    stray.write_bytes(b"half")
    old = time.time() - 7200
    for path in (files.job(JOB), files.job(orphan), stray):
        os.utime(path, (old, old))

    assert files.sweep({JOB}, set(), older_than_s=3600) == 2
    assert files.job(JOB).exists()
    assert files.job(young).exists()
    assert not files.job(orphan).exists()


def test_a_sweep_survives_what_vanishes(files, monkeypatch):
    """A file on its way is renamed between being listed and being looked at."""
    stray = files.incoming()
    stray.touch()
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda f: [f / "vanished", *listed(f)])

    assert files.sweep(set(), set(), older_than_s=-60) == 1
    assert not stray.exists()

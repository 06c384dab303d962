import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.job import Job
from common.jobs.store import Accepted, Store
from common.request import MediaInput
from common.workflow import Workflow

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GRAPH = Workflow({"1": {"class_type": "Any", "inputs": {"text": "狐"}}})
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="session")
def postgres():
    """Start a PostgreSQL of our own and return its address without a database."""
    found = shutil.which("initdb")
    folder = BINARIES[-1] if BINARIES else found and Path(found).parent
    if folder is None:
        pytest.skip("no PostgreSQL is installed")
    # Not below pytest's own folder, which it keeps for one user's eyes.
    home = Path(tempfile.mkdtemp(prefix="wan-postgres-"))
    become = as_another(home)
    data = home / "data"
    port = free_port()
    run = {"check": True, "capture_output": True, "cwd": home, **become}
    auth = ["-A", "trust", "-U", "wan", "--no-sync", "--no-locale", "-E", "UTF8"]
    subprocess.run([folder / "initdb", "-D", data, *auth], **run)
    server = subprocess.Popen(
        [folder / "postgres", "-D", data, "-p", str(port), "-k", "", "-F"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=home,
        **become,
    )
    try:
        wait_for(port, server)
        yield f"postgresql+asyncpg://wan@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def new_database(postgres):
    """Return a function that makes a database and gives its address."""
    asyncpg = pytest.importorskip("asyncpg")

    async def make():
        name = f"wan_{uuid.uuid4().hex}"
        server = postgres.replace("+asyncpg", "")
        connection = await asyncpg.connect(f"{server}/postgres")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        return f"{postgres}/{name}"

    return make


def as_another(home):
    """PostgreSQL refuses to run as root."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, server):
    end = time.monotonic() + 30
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("PostgreSQL did not start")


class Clock:
    def __init__(self):
        self.time = AT

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request, tmp_path, clock):
    """Open an empty store, on either kind of database."""
    url = address(tmp_path)
    if request.param == "postgresql":
        url = await request.getfixturevalue("new_database")()
    store = Store(url, clock)
    await store.open()
    yield store
    await store.aclose()


def address(folder):
    return f"sqlite:///{folder / 'jobs.sqlite3'}"


def accepted(owner="", key=None, uploads=(), **changes):
    job = Job(str(uuid.uuid4()), "fastwan", "comfyui", {"prompt": "狐"}, AT)
    media = (MediaInput("image", "u1", "First", "image"),)
    return Accepted(replace(job, **changes), GRAPH, media, owner, key, uploads)

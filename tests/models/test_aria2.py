"""aria2c brings files into the same staging, and keeps to what it is safe for."""

import hashlib
import random
import shutil
import threading

import pytest

from common.models.aria2 import fetch_by_aria2, leading_ones, suits
from common.models.errors import SourcesFailed, Stopped
from common.models.fetch import Goal, WrongBytes, fetch
from common.models.sources.address import Address
from common.models.staging import ARIA2
from tests.range_server import Fault, RangeServer

pytestmark = pytest.mark.skipif(not shutil.which("aria2c"), reason="no aria2c")

SIZE = (6 << 20) + 5
DATA = random.Random(2).randbytes(SIZE)
GOAL = Goal("a", SIZE, hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the file."""
    there = tmp_path / "served"
    there.mkdir()
    (there / "a.bin").write_bytes(DATA)
    return there


def bring(url, staging, goal=GOAL, notice=lambda *_: None, stop=None):
    """Fetch by aria2c."""
    return fetch_by_aria2(
        goal,
        Address(f"{url}/a.bin"),
        "web",
        staging,
        notice=notice,
        stop=stop or threading.Event(),
    )


def test_a_file_comes_whole(folder, tmp_path):
    """Bytes and hashes are as of `fetch`, and nothing of aria2's stays."""
    heard = []
    with RangeServer(folder) as server:
        fetched = bring(server.url, tmp_path / "s", notice=lambda *a: heard.append(a))

    assert fetched.path.read_bytes() == DATA
    assert fetched.sha256 == GOAL.sha256
    assert fetched.segments == ()
    assert fetched.sources == {"web": SIZE}
    assert heard[0] == (0, SIZE)
    assert heard[-1] == (SIZE, SIZE)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["data"]


def test_wrong_bytes_are_told(folder, tmp_path):
    """The hash is ours."""
    goal = Goal("a", SIZE, "0" * 64)
    with RangeServer(folder) as server, pytest.raises(WrongBytes) as wrong:
        bring(server.url, tmp_path / "s", goal)

    assert wrong.value.given == {"web": [(0, SIZE)]}


@pytest.mark.parametrize(
    ("goal", "fault"),
    [(GOAL, Fault(status=404)), (Goal("a", SIZE + 1, "0" * 64), None)],
    ids=["404", "another size"],
)
def test_a_source_that_fails_is_told(folder, tmp_path, goal, fault):
    """Whoever calls goes on with `fetch`."""
    with (
        RangeServer(folder, lambda asked: fault) as server,
        pytest.raises(SourcesFailed),
    ):
        bring(server.url, tmp_path / "s", goal)


def test_what_it_left_is_its_own(folder, tmp_path):
    """After a stop aria2c may go on, and `fetch` begins afresh."""
    stop = threading.Event()

    def notice(done, size):
        if done > SIZE // 8:
            stop.set()

    with RangeServer(folder, rate=1 << 20) as server, pytest.raises(Stopped):
        bring(server.url, tmp_path / "s", notice=notice, stop=stop)
    assert (tmp_path / "s" / ARIA2).exists()
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    heard = []
    with RangeServer(folder, rate=1 << 20) as server:
        bring(server.url, tmp_path / "s", notice=lambda done, _: heard.append(done))

        class Web:
            label = "web"

            def resolve(self):
                return Address(f"{server.url}/a.bin")

        none = {"notice": lambda *_: None, "stop": threading.Event()}
        fetched = fetch(GOAL, [Web()], tmp_path / "t", **none)

    # aria2c looks at its record before it says how far it is.
    assert min(filter(None, heard)) > SIZE // 16
    assert fetched.path.read_bytes() == DATA
    assert not (tmp_path / "t" / ARIA2).exists()


def test_it_is_for_addresses_that_last_and_need_no_header(tmp_path):
    """aria2c sends its headers to wherever it is redirected, and cannot ask anew."""
    assert suits(Address("https://a/b"), tmp_path)
    assert not suits(Address("https://a/b", expires_at=1.0), tmp_path)
    assert not suits(Address("https://a/b", {"Authorization": "x"}), tmp_path)
    assert not suits(tmp_path, tmp_path)


def test_it_leaves_a_journal_alone(folder, tmp_path):
    """What `fetch` has proven is not fetched again by aria2c."""

    class Here:
        label = "here"

        def resolve(self):
            return folder / "a.bin"

    none = {"notice": lambda *_: None, "stop": threading.Event()}
    fetch(GOAL, [Here()], tmp_path / "s", **none)

    assert not suits(Address("https://a/b"), tmp_path / "s")


@pytest.mark.parametrize(
    ("bitfield", "count"), [("", 0), ("7fff", 0), ("fffe", 15), ("ffff", 16)]
)
def test_the_beginning_is_read_from_the_bitfield(bitfield, count):
    """Only pieces without a hole before them count."""
    assert leading_ones(bitfield) == count

"""A file whose sha256 nobody says is never put together of two, and comes."""

import os
import random
import threading
from pathlib import Path

import pytest

from common.models.carrier import marked
from common.models.errors import SourcesFailed
from common.models.fetch import FetchLimits, Goal, fetch
from common.models.limits import Patience
from common.models.sources.address import Address
from common.models.staging import Identity, Staging, stated
from tests.range_server import Fault, RangeServer

BLOCK = 16 << 10
SIZE = (1 << 20) + 777
OLD, NEW = (random.Random(seed).randbytes(SIZE) for seed in (1, 2))
LIMITS = FetchLimits(
    connections=1,
    block=BLOCK,
    segment=4 * BLOCK,
    ask_least=2 * BLOCK,
    ask_most=4 * BLOCK,
    patience=Patience(strikes=1, backoff_s=0.01),
)


class At:
    """A source at an address or a path."""

    def __init__(self, place, label="web"):
        self.place = place
        self.label = label

    def resolve(self):
        return self.place if isinstance(self.place, Path) else Address(self.place)


def bring(sources, staging, size=None):
    """Fetch a file of which nobody knows the sha256."""
    return fetch(
        Goal("a", size, None),
        sources,
        staging,
        notice=lambda *_: None,
        stop=threading.Event(),
        limits=LIMITS,
    )


def serve(folder, data, fault=None):
    """Return a server of one file."""
    folder.mkdir()
    (folder / "a.bin").write_bytes(data)
    return RangeServer(folder, fault)


def tagged(tag, dies_after=None):
    """Return a rule by which each answer has an ETag, and after some there is none."""

    def rule(asked):
        if dies_after is not None and asked.number > dies_after:
            return Fault(status=500)
        return Fault(headers={"ETag": tag(asked.number)})

    return rule


@pytest.mark.parametrize(
    ("data", "tag", "kept"),
    [(OLD, '"a"', True), (OLD, 'W/"a"', True), (NEW, '"b"', False)],
    ids=["the same", "the same, called weak", "another"],
)
def test_what_came_before_is_gone_on_with_if_it_is_the_same(tmp_path, data, tag, kept):
    """A publisher who changed the file meanwhile gives the new one, as a whole."""
    with (
        serve(tmp_path / "before", OLD, tagged(lambda _: '"a"', 5)) as server,
        pytest.raises(SourcesFailed),
    ):
        bring([At(f"{server.url}/a.bin")], tmp_path / "s")
    with serve(tmp_path / "after", data, tagged(lambda _: tag)) as server:
        fetched = bring([At(f"{server.url}/a.bin")], tmp_path / "s")

    assert fetched.path.read_bytes() == data
    assert (fetched.kept > 0) is kept


def test_a_file_that_changes_under_way_is_the_new_one(tmp_path):
    """The bytes of the old one are given up, and nothing fails."""

    def fault(asked):
        if asked.number == 5:
            (tmp_path / "web" / "new").write_bytes(NEW)
            (tmp_path / "web" / "new").rename(tmp_path / "web" / "a.bin")
        return Fault(headers={"ETag": '"old"' if asked.number < 5 else '"new"'})

    with serve(tmp_path / "web", OLD, fault) as server:
        fetched = bring([At(f"{server.url}/a.bin")], tmp_path / "s")

    assert fetched.path.read_bytes() == NEW
    assert fetched.sources == {"web": SIZE}


def test_the_next_source_begins_anew(tmp_path):
    """Two publishers may mean two files by one name."""
    with (
        serve(tmp_path / "one", OLD, tagged(lambda _: '"a"', 5)) as one,
        serve(tmp_path / "two", NEW, tagged(lambda _: '"a"')) as two,
    ):
        sources = [At(f"{one.url}/a.bin", "one"), At(f"{two.url}/a.bin", "two")]
        fetched = bring(sources, tmp_path / "s")

    assert fetched.path.read_bytes() == NEW
    assert fetched.sources == {"two": SIZE}


def test_a_farm_whose_nodes_mark_one_file_differently_gives_it(tmp_path):
    """It comes by one answer, of one node; that one is what the journal names."""
    with serve(tmp_path / "web", OLD, tagged(lambda number: f'"{number}"')) as server:
        fetched = bring([At(f"{server.url}/a.bin")], tmp_path / "s")
    whole = f"bytes=0-{SIZE - 1}"
    [once] = [one.number for one in server.asked if one.headers["range"] == whole]

    assert fetched.path.read_bytes() == OLD
    assert stated(tmp_path / "s") == Identity(SIZE, None, f'web "{once}"')


def test_a_farm_that_breaks_off_is_left_for_the_next(tmp_path):
    """Nothing that it gave is mixed with what the next one gives."""

    def fault(asked):
        whole = asked.headers.get("range") == f"bytes=0-{SIZE - 1}"
        cut = SIZE // 2 if whole else None
        return Fault(headers={"ETag": f'"{asked.number}"'}, cut=cut)

    with (
        serve(tmp_path / "farm", OLD, fault) as farm,
        serve(tmp_path / "good", NEW) as good,
    ):
        sources = [At(f"{farm.url}/a.bin", "farm"), At(f"{good.url}/a.bin", "good")]
        fetched = bring(sources, tmp_path / "s")
        with pytest.raises(SourcesFailed, match="farm"):
            bring(sources[:1], tmp_path / "t")

    assert fetched.path.read_bytes() == NEW


def test_weak_marks_and_strong_ones_are_the_same(tmp_path):
    """Nodes that pack answers call the mark weak; no byte comes twice for it."""
    weak = tagged(lambda number: 'W/"a"' if number % 2 else '"a"')
    with serve(tmp_path / "web", OLD, weak) as server:
        fetched = bring([At(f"{server.url}/a.bin")], tmp_path / "s")

    assert fetched.path.read_bytes() == OLD
    assert server.sent == SIZE + 1  # and the byte by which it was looked at


def test_a_file_of_this_machine_is_told_by_its_date(tmp_path):
    """What was copied of an older one is not gone on with."""
    path = tmp_path / "a.bin"
    path.write_bytes(OLD)
    identity = Identity(SIZE, None, marked("web", path))
    with Staging(tmp_path / "s", identity, BLOCK) as staging:
        staging.write(0, memoryview(OLD)[:BLOCK], "web")
    assert bring([At(path)], tmp_path / "s").kept == BLOCK
    path.write_bytes(NEW)
    os.utime(path, (1, 1))

    fetched = bring([At(path)], tmp_path / "s")

    assert (fetched.path.read_bytes() == NEW, fetched.kept) == (True, 0)


def test_a_file_of_another_size_is_left_before_it_comes(tmp_path):
    """A size may be known where a sha256 is not."""
    with (
        serve(tmp_path / "short", OLD[:-1]) as short,
        serve(tmp_path / "good", NEW) as good,
    ):
        sources = [At(f"{short.url}/a.bin", "short"), At(f"{good.url}/a.bin", "good")]
        fetched = bring(sources, tmp_path / "s", SIZE)

    assert fetched.sources == {"good": SIZE}
    assert short.sent == 1

"""Files come whole, from whoever has them, whatever happens on the way."""

import hashlib
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from common.models.errors import AuthNeeded, Corrupt, NoSpace, SourcesFailed, Stopped
from common.models.fetch import FetchLimits, Goal, WrongBytes, fetch
from common.models.limits import Patience
from common.models.segments import block_hashes, segment_hashes
from common.models.sources.address import Address, NotThere, SourceTrouble
from common.models.staging import ARIA2, claimed_bytes
from tests.range_server import Fault, RangeServer

BLOCK = 16 << 10
SEGMENT = 64 << 10
SIZE = (2 << 20) + 777
DATA = random.Random(1).randbytes(SIZE)
SHA = hashlib.sha256(DATA).hexdigest()
SEGMENTS = segment_hashes(block_hashes(memoryview(DATA), BLOCK), SEGMENT // BLOCK)
GOAL = Goal("a.safetensors", SIZE, SHA)
LIMITS = FetchLimits(
    connections=4,
    block=BLOCK,
    segment=SEGMENT,
    ask_least=32 << 10,
    ask_most=256 << 10,
    connect_s=5,
    stall_s=0.3,
    tail_s=0.2,
    patience=Patience(backoff_s=0.01),
)


class At:
    """A source at an address; `resolved` counts how often it was asked for one."""

    def __init__(self, place, label="web", **facts):
        self.place = place
        self.label = label
        self.facts = facts
        self.resolved = 0

    def resolve(self):
        self.resolved += 1
        place = self.place(self.resolved) if callable(self.place) else self.place
        if isinstance(place, Exception):
            raise place
        return place if isinstance(place, Path) else Address(place, **self.facts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the file that all servers of this module have."""
    there = tmp_path_factory.mktemp("served")
    (there / "a.bin").write_bytes(DATA)
    (there / "wrong.bin").write_bytes(DATA[:100_000] + b"?" + DATA[100_001:])
    (there / "short.bin").write_bytes(DATA[:-1])
    return there


def bring(sources, staging, goal=GOAL, limits=LIMITS, **options):
    """Fetch and check what came."""
    options = {"notice": lambda *_: None, "stop": threading.Event(), **options}
    fetched = fetch(goal, sources, staging, limits=limits, **options)
    assert fetched.path == staging / "data"
    assert fetched.path.read_bytes() == DATA
    assert (fetched.size, fetched.sha256) == (SIZE, SHA)
    assert fetched.segments == SEGMENTS
    assert sum(fetched.sources.values()) == SIZE
    return fetched


def once(rule):
    """Apply a fault to the first request that the rule gives one for."""
    done = []

    def fault(asked):
        if not done and (found := rule(asked)) is not None:
            done.append(asked)
            return found
        return None

    return fault


@pytest.mark.parametrize("segments", [(), SEGMENTS], ids=["unknown", "known"])
@pytest.mark.parametrize("count", [1, 4], ids=["one connection", "four"])
def test_a_file_comes_whole(folder, tmp_path, count, segments):
    """Each byte is there, hashed, and told of from nothing to all."""
    heard = []
    with RangeServer(folder) as server:
        fetched = bring(
            [At(f"{server.url}/a.bin")],
            tmp_path / "s",
            replace(GOAL, segments=segments),
            replace(LIMITS, connections=count),
            notice=lambda *said: heard.append(said),
        )

    assert fetched.sources == {"web": SIZE}
    assert server.sent == SIZE
    assert heard[0] == (0, SIZE)
    assert heard[-1] == (SIZE, SIZE)


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, SEGMENT])
def test_odd_sizes_come_whole(tmp_path, size):
    """A file of no byte, or of a block and one, is a file like any other."""
    (tmp_path / "a.bin").write_bytes(DATA[:size])
    goal = Goal("a", size, hashlib.sha256(DATA[:size]).hexdigest())
    with RangeServer(tmp_path) as server:
        fetched = fetch(
            goal,
            [At(f"{server.url}/a.bin")],
            tmp_path / "s",
            notice=lambda *_: None,
            stop=threading.Event(),
            limits=LIMITS,
        )

    assert fetched.path.read_bytes() == DATA[:size]


@pytest.mark.parametrize("kind", ["web", "said", "path"])
def test_an_empty_file_that_nobody_vouches_for_is_trouble(folder, tmp_path, kind):
    """The next source is asked; no weights are empty."""
    empty = tmp_path / "empty.bin"
    empty.write_bytes(b"")
    with RangeServer(folder) as server, RangeServer(tmp_path) as broken:
        place = empty if kind == "path" else f"{broken.url}/empty.bin"
        bad = At(place, "bad", **({"size": 0} if kind == "said" else {}))
        goal = Goal("a", None, None)
        fetched = bring([bad, At(f"{server.url}/a.bin")], tmp_path / "s", goal)
        with pytest.raises(SourcesFailed, match="bad"):
            bring([bad], tmp_path / "t", goal)

    assert fetched.sources == {"web": SIZE}


def test_a_file_of_this_machine_is_copied_and_hashed(folder, tmp_path):
    """A source that is a path goes through the same checks."""
    fetched = bring([At(folder / "a.bin", "local")], tmp_path / "s")

    assert fetched.sources == {"local": SIZE}


@pytest.mark.parametrize(
    "facts",
    [{}, {"size": SIZE}, {"size": SIZE, "sha256": SHA}],
    ids=["nothing stated", "size", "size and hash"],
)
def test_a_goal_without_facts_takes_the_sources(folder, tmp_path, facts):
    """Nobody knows the file yet: what its source says is what must come."""
    with RangeServer(folder) as server:
        source = At(f"{server.url}/a.bin", **facts)
        bring([source], tmp_path / "s", Goal("a", None, None))


def test_what_a_source_states_must_come(folder, tmp_path):
    """A hash that only the source states is held against its bytes."""
    with RangeServer(folder) as server:
        source = At(f"{server.url}/a.bin", size=SIZE, sha256="0" * 64)
        with pytest.raises(WrongBytes):
            bring([source], tmp_path / "s", Goal("a", None, None))


@pytest.mark.parametrize(
    "rule",
    [
        lambda asked: Fault(cut=40_000) if asked.number % 2 else None,
        once(lambda asked: Fault(stall=20_000)),
        once(lambda asked: Fault(silent=True)),
        once(lambda asked: Fault(status=500)),
        once(lambda asked: Fault(status=429, headers={"Retry-After": "0"})),
        once(lambda asked: Fault(status=503)),
        once(lambda asked: Fault(status=403)),
        lambda asked: Fault(whole=True),
        once(lambda asked: Fault(whole=True) if asked.start else None),
    ],
    ids=[
        "every second answer cut",
        "stall",
        "no answer",
        "500",
        "429 with Retry-After",
        "503 without",
        "403 once",
        "200 to every Range",
        "200 to one Range",
    ],
)
def test_one_source_is_enough(folder, tmp_path, rule):
    """What goes wrong for a while costs time, and nothing else."""
    with RangeServer(folder, rule) as server:
        bring([At(f"{server.url}/a.bin")], tmp_path / "s")


@pytest.mark.parametrize(
    ("rule", "path", "error", "says"),
    [
        (lambda asked: Fault(status=404), "a.bin", SourcesFailed, "not have"),
        (lambda asked: Fault(status=401), "a.bin", AuthNeeded, "401"),
        (lambda asked: Fault(status=418), "a.bin", SourcesFailed, "418"),
        (lambda asked: Fault(status=500), "a.bin", SourcesFailed, "500"),
        (lambda asked: Fault(cut=10), "a.bin", SourcesFailed, "too early"),
        (
            lambda asked: Fault(status=429, headers={"Retry-After": "900"}),
            "a.bin",
            SourcesFailed,
            "busy",
        ),
        (None, "short.bin", SourcesFailed, f"{SIZE - 1} bytes"),
        (
            lambda asked: Fault(headers={"Content-Encoding": "gzip"}),
            "a.bin",
            SourcesFailed,
            "packs",
        ),
    ],
    ids=["404", "401", "418", "500", "cut", "429 for 15 minutes", "size", "gzip"],
)
def test_a_source_that_fails_is_left_for_the_next(
    folder, tmp_path, rule, path, error, says
):
    """A second source goes on; without one the error says what the first did."""
    with RangeServer(folder, rule) as server, RangeServer(folder) as good:
        first = At(f"{server.url}/{path}?signature=secret", "first")
        fetched = bring([first, At(f"{good.url}/a.bin", "second")], tmp_path / "s")
        with pytest.raises(error, match=says) as failed:
            bring([first], tmp_path / "t")

    assert fetched.sources == {"second": SIZE}
    assert "first" in failed.value.message
    assert "secret" not in failed.value.message


@pytest.mark.parametrize(
    "error", [NotThere("no"), SourceTrouble("no"), AuthNeeded("no")], ids=repr
)
def test_a_source_that_resolves_to_nothing_is_left(folder, tmp_path, error):
    """Sources may fail before there is an address."""
    bring([At(error, "first"), At(folder / "a.bin")], tmp_path / "s")


def test_the_next_source_brings_only_what_is_missing(folder, tmp_path):
    """The bytes of a source that dies in the middle are kept."""

    def dies(asked):
        return Fault(status=500) if asked.number > 4 else None

    with RangeServer(folder, dies) as server, RangeServer(folder) as good:
        first, second = At(f"{server.url}/a.bin", "1"), At(f"{good.url}/a.bin", "2")
        fetched = bring([first, second], tmp_path / "s")

    assert fetched.sources["1"] >= 100_000
    assert good.sent == fetched.sources["2"] == SIZE - fetched.sources["1"]


def test_an_address_that_expires_is_asked_for_again(folder, tmp_path):
    """Each address serves three requests; the source gives another."""
    used = {}

    def expires(asked):
        used[asked.path] = used.get(asked.path, 0) + 1
        return Fault(status=403) if used[asked.path] > 3 else None

    limits = replace(LIMITS, ask_most=64 << 10)
    with RangeServer(folder, expires) as server:
        source = At(lambda count: f"{server.url}/a.bin?signature={count}")
        bring([source], tmp_path / "s", limits=limits)

    assert source.resolved > 5


def test_an_address_about_to_expire_is_not_used(folder, tmp_path):
    """The source is asked again before the server refuses."""
    with RangeServer(folder) as server:
        source = At(f"{server.url}/a.bin", expires_at=time.time() + 5)
        bring([source], tmp_path / "s", limits=replace(LIMITS, connections=1))

    assert source.resolved > 2
    assert len(server.asked) == source.resolved


def test_authorization_stays_with_its_host(folder, tmp_path):
    """A redirect to another origin goes without the headers, one within it with."""
    with RangeServer(folder) as store:

        def there(asked):
            where = {"/in": "/again", "/again": f"{store.url}/a.bin"}[asked.path]
            return Fault(status=302, headers={"Location": where})

        with RangeServer(folder, there) as hub:
            headers = {"Authorization": "Bearer secret"}
            bring([At(f"{hub.url}/in", headers=headers)], tmp_path / "s")

    assert {asked.path for asked in hub.asked} == {"/in", "/again"}
    assert all("authorization" in asked.headers for asked in hub.asked)
    assert store.asked
    assert not any("authorization" in asked.headers for asked in store.asked)
    assert len(hub.asked) < len(store.asked)


def test_redirects_end(folder, tmp_path):
    """A server that sends us in a circle is left."""
    circle = Fault(status=302, headers={"Location": "/a.bin"})
    with (
        RangeServer(folder, lambda asked: circle) as server,
        pytest.raises(SourcesFailed, match="for ever"),
    ):
        bring([At(f"{server.url}/a.bin")], tmp_path / "s")


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:99999/x", "http://[bad/x", "http://127.0.0.1:x/"]
)
def test_a_redirect_to_no_address_is_left_for_the_next(folder, tmp_path, location):
    """What a server makes up is its own failure and not ours."""
    to = Fault(status=302, headers={"Location": location})
    with RangeServer(folder, lambda asked: to) as odd, RangeServer(folder) as good:
        sources = [At(f"{odd.url}/a.bin", "odd"), At(f"{good.url}/a.bin", "good")]
        fetched = bring(sources, tmp_path / "s")

    assert fetched.sources == {"good": SIZE}


def test_paths_may_be_in_any_language(folder, tmp_path):
    """A URL is sent as UTF-8, and a redirect in the bytes that it came in."""

    def there(asked):
        to = {"Location": "/mod\u00e8le 2/a.bin"}
        return Fault(status=302, headers=to) if "%C3%A8" in asked.path else None

    with RangeServer(folder, there) as server:
        bring([At(f"{server.url}/mod\u00e8le/a.bin")], tmp_path / "s")

    paths = {asked.path for asked in server.asked}
    assert paths == {"/mod%C3%A8le/a.bin", "/mod%E8le%202/a.bin"}


def test_a_wrong_byte_is_found_at_the_end(folder, tmp_path):
    """Without known segments the error names who gave which bytes."""
    with (
        RangeServer(folder, lambda asked: Fault(flip=70_000)) as server,
        pytest.raises(WrongBytes) as wrong,
    ):
        bring([At(f"{server.url}/a.bin")], tmp_path / "s")

    assert wrong.value.given == {"web": [(0, SIZE)]}
    assert wrong.value.exit_code == 4


def test_a_wrong_byte_costs_one_segment(folder, tmp_path):
    """With known segments the bad one alone comes from the next source."""
    with RangeServer(folder) as server:
        bad, good = At(f"{server.url}/wrong.bin", "bad"), At(folder / "a.bin", "good")
        # One connection: the bad source is left when its second segment is judged.
        limits = replace(LIMITS, connections=1, ask_most=SIZE)
        goal = replace(GOAL, segments=SEGMENTS)
        fetched = bring([bad, good], tmp_path / "s", goal, limits)

    assert fetched.sources["bad"] + fetched.sources["good"] == SIZE
    assert fetched.sources["bad"] >= SEGMENT


def test_a_last_source_with_wrong_bytes_is_corrupt(folder, tmp_path):
    """The segment is asked for once more, and then given up."""
    goal = replace(GOAL, segments=SEGMENTS)
    with RangeServer(folder) as server, pytest.raises(Corrupt, match="segment 1"):
        bring([At(f"{server.url}/wrong.bin")], tmp_path / "s", goal)


def test_a_byte_that_was_wrong_once_is_fetched_again(folder, tmp_path):
    """A transfer error heals with the same source."""
    goal = replace(GOAL, segments=SEGMENTS)
    flips = once(lambda asked: Fault(flip=asked.start))
    with RangeServer(folder, flips) as server:
        bring([At(f"{server.url}/a.bin")], tmp_path / "s", goal)

    assert SIZE < server.sent + 1 <= SIZE + 2 * SEGMENT


def test_a_slow_range_is_shared_at_the_end(folder, tmp_path):
    """One connection that crawls does not hold up the others' work."""
    held = threading.Event()

    def crawls(asked):
        if held.is_set() or asked.start is None:
            return None
        held.set()
        return Fault(stall=30_000)

    limits = replace(LIMITS, stall_s=60)
    with RangeServer(folder, crawls) as server:
        bring([At(f"{server.url}/a.bin")], tmp_path / "s", limits=limits)


def test_a_stop_keeps_what_came(folder, tmp_path):
    """The next call fetches only the rest."""
    stop = threading.Event()
    with RangeServer(folder, rate=1 << 20) as server:
        source = At(f"{server.url}/a.bin")

        def notice(done, size):
            if done > SIZE // 4:
                stop.set()

        with pytest.raises(Stopped):
            bring([source], tmp_path / "s", notice=notice, stop=stop)
        kept = claimed_bytes(tmp_path / "s")
        server.rate = None
    told = []
    with RangeServer(folder) as server:
        again = bring(
            [At(f"{server.url}/a.bin")],
            tmp_path / "s",
            notice=lambda done, _: told.append(done),
        )

    assert kept > SIZE // 8
    assert server.sent == SIZE - kept
    assert (again.kept, told[0], told[-1]) == (kept, kept, SIZE)
    assert told == sorted(told)


def test_a_block_that_rotted_is_fetched_again(folder, tmp_path):
    """The journal's word is checked before it is believed."""
    bring([At(folder / "a.bin")], tmp_path / "s")
    with (tmp_path / "s" / "data").open("r+b") as file:
        file.seek(BLOCK * 3 + 5)
        file.write(b"rot")
    with RangeServer(folder) as server:
        fetched = bring([At(f"{server.url}/a.bin", "again")], tmp_path / "s")

    assert server.sent == BLOCK
    assert fetched.sources == {"web": SIZE - BLOCK, "again": BLOCK}


def test_a_whole_staging_asks_nobody(folder, tmp_path):
    """What is proven needs no source."""
    bring([At(folder / "a.bin")], tmp_path / "s")

    bring([], tmp_path / "s")


def test_what_aria2_left_is_not_believed(folder, tmp_path):
    """Its control file means that `data` is not ours to go on with."""
    bring([At(folder / "a.bin")], tmp_path / "s")
    (tmp_path / "s" / ARIA2).write_bytes(b"?")
    with RangeServer(folder) as server:
        bring([At(f"{server.url}/a.bin")], tmp_path / "s")

    assert server.sent == SIZE
    assert not (tmp_path / "s" / ARIA2).exists()


def test_room_is_reserved_once(folder, tmp_path):
    """The caller gets a descriptor and the whole size; its refusal ends the fetch."""
    asked = []
    bring([At(folder / "a.bin")], tmp_path / "s", reserve=lambda *a: asked.append(a[1]))

    def refuse(descriptor, size):
        raise NoSpace("full")

    with pytest.raises(NoSpace):
        bring([At(folder / "a.bin")], tmp_path / "t", reserve=refuse)
    assert asked == [SIZE]


CHILD = """
import sys, threading
from pathlib import Path
from common.models.fetch import fetch
from tests.models.test_fetch import At, GOAL, LIMITS
fetch(GOAL, [At(sys.argv[1])], Path(sys.argv[2]),
      notice=lambda *_: print(end=".", flush=True),
      stop=threading.Event(), limits=LIMITS)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kills_lose_what_was_in_flight(folder, tmp_path):
    """Killed again and again, a fetch goes on, and ends with the right file."""
    root = Path(__file__).parents[2]
    lost = 0
    for seed in range(4):
        with RangeServer(folder, rate=600_000) as server:
            command = [sys.executable, "-c", CHILD, f"{server.url}/a.bin"]
            child = subprocess.Popen(
                [*command, str(tmp_path / "s")], cwd=root, stdout=subprocess.PIPE
            )
            child.stdout.read(2)
            time.sleep(0.05 + random.Random(seed).random() * 0.2)
            child.send_signal(signal.SIGKILL)
            child.communicate()
            lost += server.sent
    kept = claimed_bytes(tmp_path / "s")
    with RangeServer(folder) as server:
        bring([At(f"{server.url}/a.bin")], tmp_path / "s")

    assert 0 < kept < SIZE
    assert server.sent <= SIZE - kept

"""Who is asked when a source brings next to nothing, or our own disk does not."""

import errno
import hashlib
import random
import threading

import pytest

from common.models import staging as module
from common.models.fetch import FetchLimits, Goal, fetch
from common.models.limits import Patience
from common.models.sources.address import Address
from tests.range_server import Fault, RangeServer

BLOCK = 16 << 10
DATA = random.Random(2).randbytes((1 << 20) + 7)
GOAL = Goal("a.safetensors", len(DATA), hashlib.sha256(DATA).hexdigest())


class At:
    """A source at an address, or a file."""

    def __init__(self, label, place):
        self.label = label
        self.place = place

    def resolve(self):
        return Address(self.place) if isinstance(self.place, str) else self.place


def bring(sources, staging, least_rate):
    """Fetch a file with patience for a third of a second."""
    patience = Patience(backoff_s=0.01, least_rate=least_rate, slow_s=0.3)
    limits = FetchLimits(
        connections=4,
        block=BLOCK,
        segment=4 * BLOCK,
        ask_least=BLOCK,
        connect_s=5,
        stall_s=5,
        patience=patience,
    )
    fetched = fetch(
        GOAL,
        sources,
        staging,
        notice=lambda *_: None,
        stop=threading.Event(),
        limits=limits,
    )
    assert fetched.path.read_bytes() == DATA
    return fetched.sources


@pytest.mark.parametrize(
    "how",
    [
        {"rate": 2000},
        {"fault": lambda asked: Fault(silent=True)},
        {"fault": lambda asked: Fault(stall=100)},
    ],
    ids=["drips", "does not answer", "stalls"],
)
def test_a_source_that_would_take_for_ever_is_left_for_a_healthy_one(tmp_path, how):
    """Whether it is silent or never is, it holds up nobody."""
    (tmp_path / "a.bin").write_bytes(DATA)
    with RangeServer(tmp_path, **how) as slow, RangeServer(tmp_path) as good:
        places = [At("slow", f"{slow.url}/a.bin"), At("good", f"{good.url}/a.bin")]
        sources = bring(places, tmp_path / "s", least_rate=500e3)

    assert sources["good"] > len(DATA) // 2
    assert slow.sent < len(DATA) // 4


def test_a_slow_source_goes_on_where_the_other_fails(tmp_path):
    """It was put off, not given up: what it has is better than nothing."""
    (tmp_path / "a.bin").write_bytes(DATA)
    with RangeServer(tmp_path, rate=400_000) as slow:
        places = [At("slow", f"{slow.url}/a.bin"), At("gone", f"{slow.url}/b.bin")]
        sources = bring(places, tmp_path / "s", least_rate=1e9)

    assert sources == {"slow": len(DATA)}
    assert any(asked.path == "/b.bin" for asked in slow.asked)


def test_a_sole_slow_source_goes_on(tmp_path):
    """There is nobody to do better."""
    (tmp_path / "a.bin").write_bytes(DATA)
    with RangeServer(tmp_path, rate=500_000) as slow:
        places = [At("slow", f"{slow.url}/a.bin")]

        assert bring(places, tmp_path / "s", least_rate=1e9) == {"slow": len(DATA)}


@pytest.mark.parametrize("served", [True, False], ids=["web", "local"])
def test_a_disk_of_ours_that_fails_is_not_the_sources_fault(
    tmp_path, monkeypatch, served
):
    """No other source is asked, and the disk's own words are kept."""
    (tmp_path / "a.bin").write_bytes(DATA)

    def bad(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "pwrite", bad)
    with RangeServer(tmp_path) as server:
        place = f"{server.url}/a.bin" if served else tmp_path / "a.bin"
        with pytest.raises(OSError, match="Input/output error"):
            bring([At("good", place)], tmp_path / "s", least_rate=1)

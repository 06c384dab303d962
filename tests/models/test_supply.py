"""Sources are asked in order, and left when they go wrong too often."""

import pytest

from common.models.errors import AuthNeeded, SourcesFailed
from common.models.limits import Patience
from common.models.sources.address import Address, NotThere, SourceBusy, SourceTrouble
from common.models.supply import Supply

QUICK = Patience(strikes=3, backoff_s=0, busy_s=10, busy=2)


class Here:
    """A source that resolves to what it is given, in turn; the last for ever."""

    def __init__(self, label, *places):
        self.label = label
        self.places = list(places) or [Address(f"http://{label}")]

    def resolve(self):
        place = self.places[0] if len(self.places) == 1 else self.places.pop(0)
        if isinstance(place, Exception):
            raise place
        return place


def supply(*sources):
    """Return a supply of sources with these labels."""
    made = [Here(s) if isinstance(s, str) else s for s in sources]
    return Supply(made, QUICK, lanes=16)


def asked(it, size=None, sha256=None):
    """Return the label that is asked now."""
    while (way := it.way(size, sha256)) is None:
        pass
    return way.label


def test_a_burst_is_one_strike():
    """Sixteen connections that break together say one thing."""
    it = supply("a", "b")
    way = it.way(None, None)
    for _ in range(16):
        it.failed(way, "cut")
    assert asked(it) == "a"

    it.failed(it.way(None, None), "cut")
    it.failed(it.way(None, None), "cut")
    assert asked(it) == "b"


def test_a_slow_source_is_put_off_until_all_were_tried():
    """Equally slow ones are asked once each; then the fastest goes on for ever."""
    it = supply("a", "b", "c")
    said = []
    for rate in (900.0, 1000.0, 100.0, 800.0, 300.0, 1.0, 1.0):
        said.append(asked(it))
        it.slow(it.index, rate)

    assert said == ["a", "b", "c", "b", "b", "b", "a"]


def test_a_sole_source_may_be_slow():
    """There is nobody else to ask, and a rate is no reason to fail."""
    it = supply("a")
    assert not it.slow(it.index, 0.0)
    assert asked(it) == "a"


@pytest.mark.parametrize("rate", [64e3, 1e9])
def test_a_source_that_does_is_kept(rate):
    """From the least rate on nobody looks for a better one."""
    it = supply("a", "b")
    assert not it.slow(it.index, rate)
    assert asked(it) == "a"


def test_a_slow_source_is_asked_again_when_the_others_fail():
    """It comes last, and a report about its first turn is not heard in the second."""
    it = supply("a", "b")
    first = it.way(None, None)
    assert it.slow(first.index, 10.0)
    assert it.is_put_off(first)
    it.leave(it.way(None, None), NotThere("gone"))
    it.leave(first, SourceTrouble("late"))

    assert asked(it) == "a"
    assert not it.is_put_off(it.way(None, None))


def test_a_block_forgives():
    """Strikes are failures in a row."""
    it = supply("a", "b")
    for _ in range(9):
        it.failed(it.way(None, None), "cut")
        it.gained(it.way(None, None))
    assert asked(it) == "a"


def test_a_refusal_asks_the_source_once_more():
    """A new address is tried; refused too, the source wants a token."""
    it = supply(Here("a", Address("http://1"), Address("http://2")))
    first = it.way(None, None)
    it.refused(first, 403)
    it.refused(first, 403)
    second = it.way(None, None)
    assert second.place.url == "http://2"
    it.refused(second, 403)
    with pytest.raises(AuthNeeded, match="403"):
        it.way(None, None)


def test_busy_means_fewer_connections_and_a_wait():
    """And in the end, or for too long a wait, the next source."""
    it = supply("a", "b", "c")
    it.busy(it.way(None, None), 429, 5)
    assert it.lanes == 8
    assert 4 < it.seconds_to_wait() <= 5.5
    it.busy(it.way(None, None), 503, 0)
    it.busy(it.way(None, None), 503, 0)
    assert (asked(it), it.lanes, it.seconds_to_wait()) == ("b", 16, 0)
    it.busy(it.way(None, None), 429, 11)
    assert asked(it) == "c"


@pytest.mark.parametrize(
    "first",
    [
        Here("a", NotThere("no")),
        Here("a", AuthNeeded("no")),
        Here("a", SourceTrouble("no")),
        Here("a", Address("http://a", size=9)),
        Here("a", Address("http://a", sha256="b")),
    ],
    ids=["not there", "auth", "trouble", "size", "sha256"],
)
def test_sources_without_the_file_are_passed_over(first):
    """Before a byte is asked for."""
    assert asked(supply(first, "b"), 10, "a") == "b"


def test_a_source_may_stumble_while_resolving():
    """Trouble is a strike; it is asked again."""
    it = supply(Here("a", SourceTrouble("no"), Address("http://a")), "b")
    assert asked(it) == "a"


def test_the_end_says_what_each_source_did():
    """All reasons are in one message, by label."""
    it = supply(Here("a", NotThere("no such file")), "b")
    it.leave(it.way(None, None), SourceTrouble("it is odd"))
    with pytest.raises(SourcesFailed, match="a: no such file; b: it is odd"):
        it.way(None, None)


def test_an_old_report_does_not_leave_the_next_source():
    """What a late connection says of the first is not held against the second."""
    it = supply("a", "b")
    way = it.way(None, None)
    it.leave(way, NotThere("no"))
    it.leave(way, NotThere("no"))
    it.failed(way, "cut")
    assert asked(it) == "b"


def test_a_source_that_is_busy_when_asked_is_waited_for():
    """As long as it says, before a byte was asked for; not as after a failure."""
    busy = SourceBusy("a: status 429", 429, {"Retry-After": "7"})
    it = supply(Here("a", busy, busy, Address("http://a")), "b")

    assert it.way(None, None) is None
    assert 6 < it.seconds_to_wait() <= 7.7
    assert it.way(None, None) is None
    assert it.way(None, None).label == "a"


def test_a_source_that_wants_too_long_a_wait_is_left():
    """The next one is asked at once; the last one's wait is in the message."""
    busy = SourceBusy("a: status 503", 503, {"Retry-After": "3600"})

    assert asked(supply(Here("a", busy), "b")) == "b"
    with pytest.raises(SourcesFailed, match="wait 3600 s") as caught:
        asked(supply(Here("a", busy)))
    assert "later" in caught.value.hint


def test_what_a_source_advises_is_said():
    """Its own hint is worth more than a general one."""
    gone = SourceTrouble("a does not answer", "is a reachable?")

    with pytest.raises(SourcesFailed) as caught:
        asked(supply(Here("a", gone)))
    assert caught.value.hint.startswith("is a reachable?")

import json
from dataclasses import replace
from pathlib import Path

import pytest

from common.models.garbage import (
    LOOK_S,
    Blob,
    Listing,
    Question,
    Roots,
    Scrap,
    decide,
)

NOW = 1_000_000_000.0
DAY = 86_400.0
HOUR = 3_600.0
OLD = NOW - 90 * DAY

NONE = Roots(frozenset(), frozenset(), frozenset(), {})
ASKED = Question(None, 30 * DAY, HOUR)


def blob(name="a", size=10, **changes):
    return replace(Blob(name, (Path(f"blobs/{name}"),), size, OLD), **changes)


def scrap(kind, age=2 * DAY, **changes):
    made = Scrap(kind, (Path(f"{kind}/x"),), 5, NOW - age)
    return replace(made, **changes)


def gone(listing, roots=NONE, **asked):
    plan = decide(listing, roots, replace(ASKED, **asked), NOW)
    return [removal.sha256 or removal.kind for removal in plan.removals]


def keys(*names):
    return frozenset(names)


def test_what_no_model_uses_goes():
    """Old bytes without a root are freed, each once."""
    plan = decide(Listing((blob(),), ()), NONE, ASKED, NOW)

    assert plan.freed_bytes == 10
    assert (plan.kept_bytes, plan.over_bytes) == (0, 0)
    assert json.loads(json.dumps(plan.as_json()))["removals"][0]["sha256"] == "a"


@pytest.mark.parametrize(
    ("one", "roots"),
    [
        (blob(), replace(NONE, configured=keys("a"))),
        (blob(), replace(NONE, pinned=keys("a"))),
        (blob(), replace(NONE, live=keys("a"))),
        (blob(), replace(NONE, used={"a": NOW - 29 * DAY})),
        (blob(verified_at=NOW - HOUR / 2), NONE),
        (blob(verified_at=NOW + DAY), NONE),
        (blob(placed=True), NONE),
        (blob(elsewhere=True), NONE),
    ],
    ids=[
        "in the manifest",
        "pinned",
        "being fetched",
        "used lately",
        "young",
        "from a clock that is ahead",
        "placed by hand",
        "linked elsewhere",
    ],
)
def test_what_has_a_root_stays(one, roots):
    """Each root keeps bytes by itself."""
    assert gone(Listing((one,), ()), roots) == []


def test_what_was_used_long_ago_goes():
    """A use keeps bytes for the days that were asked for, and an hour at least."""
    listing = Listing((blob(),), ())

    assert gone(listing, replace(NONE, used={"a": NOW - 31 * DAY})) == ["a"]
    assert gone(listing, replace(NONE, used={"a": NOW - DAY}), keep_s=0) == ["a"]
    assert gone(listing, replace(NONE, used={"a": NOW - 60}), keep_s=0) == []


def test_what_a_hand_placed_goes_when_asked():
    """Never by itself; with `placed` it is treated as what was fetched."""
    assert gone(Listing((blob(placed=True),), ()), placed=True) == ["a"]


def test_room_is_made_from_the_least_recently_used():
    """Only as much as needed, oldest use first, and never what is pinned or in use."""
    listing = Listing(tuple(map(blob, "abcd")), ())
    roots = Roots(
        keys(*"abcd"),
        keys("a"),
        frozenset(),
        {"b": NOW - 40 * DAY, "c": NOW - 80 * DAY, "d": NOW - DAY},
    )

    assert gone(listing, roots) == []
    assert gone(listing, roots, max_bytes=40) == []
    assert gone(listing, roots, max_bytes=39) == ["c"]
    assert gone(listing, roots, max_bytes=30) == ["c"]
    assert gone(listing, roots, max_bytes=0) == ["c", "b"]
    assert decide(listing, roots, replace(ASKED, max_bytes=5), NOW).over_bytes == 15


def test_what_no_model_uses_goes_before_what_one_does():
    """Bytes without a root make room first."""
    listing = Listing((blob("a"), blob("b")), ())
    roots = replace(NONE, configured=keys("a"))

    assert gone(listing, roots, max_bytes=10) == ["b"]


@pytest.mark.parametrize(
    ("one", "roots", "expected"),
    [
        (scrap("staging", key="k"), NONE, ["staging"]),
        (scrap("staging", key="k"), replace(NONE, live=keys("k")), []),
        (scrap("staging", key="k"), replace(NONE, configured=keys("k")), []),
        (scrap("staging", age=HOUR / 2), NONE, []),
        (scrap("trash", age=0), NONE, ["trash"]),
        (scrap("part"), NONE, ["part"]),
        (scrap("part", age=60), NONE, []),
        (scrap("quarantine"), NONE, ["quarantine"]),
        (scrap("quarantine", age=LOOK_S - 1), NONE, []),
        (scrap("quarantine", asked=True), NONE, []),
        (scrap("foreign"), NONE, ["foreign"]),
        (scrap("foreign", age=LOOK_S - 1), NONE, []),
        (scrap("foreign", asked=True), NONE, []),
    ],
)
def test_scraps_go_when_nobody_needs_them(one, roots, expected):
    """Half files of wanted models stay; strangers stay unless asked for."""
    assert gone(Listing((), (one,)), roots) == expected
    if one.asked:
        assert gone(Listing((), (one,)), roots, foreign=True) == [one.kind]


def test_half_a_file_makes_room_and_goes_when_the_whole_is_there():
    """A partial file is worth keeping only until its bytes are published."""
    half = scrap("staging", key="a")
    roots = replace(NONE, configured=keys("a"))

    assert gone(Listing((), (half,)), roots, max_bytes=0) == ["staging"]
    assert gone(Listing((blob(),), (half,)), roots) == ["staging"]

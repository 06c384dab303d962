"""An answer's status and headers decide what is done with a source."""

from datetime import UTC, datetime

import pytest

from common.models.answers import (
    Absent,
    Busy,
    Moved,
    Odd,
    Ranged,
    Refused,
    Whole,
    judge,
    retry_after,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "headers", "meaning"),
    [
        (206, {"content-range": "bytes 10-19/99"}, Ranged(99)),
        (206, {"content-range": "bytes 10-15/99"}, Ranged(99)),
        (200, {"content-length": "99"}, Whole(99)),
        (200, {}, Whole(None)),
        (302, {"location": "/x"}, Moved("/x")),
        (308, {"location": "http://x"}, Moved("http://x")),
        (401, {}, Refused(401)),
        (403, {}, Refused(403)),
        (410, {}, Refused(410)),
        (404, {}, Absent()),
        (429, {"retry-after": "7"}, Busy(429, 7)),
        (503, {}, Busy(503, None)),
    ],
    ids=str,
)
def test_answers_have_meanings(status, headers, meaning):
    """Each status that a store or a hub gives is known."""
    assert judge(status, headers, 10, 20, NOW) == meaning


@pytest.mark.parametrize(
    ("headers", "mark"),
    [
        ({"etag": '"x"', "last-modified": "then"}, '"x"'),
        ({"etag": 'W/"x"'}, '"x"'),
        ({"last-modified": "then"}, "then"),
        ({}, ""),
    ],
    ids=["strong", "weak", "a date", "nothing"],
)
def test_a_file_has_a_mark(headers, mark):
    """Its ETag, weak or not, for nodes call one file both; else its date."""
    length = {"content-length": "99"}
    assert judge(200, headers | length, 0, 99, NOW) == Whole(99, mark)


@pytest.mark.parametrize(
    ("status", "headers", "final"),
    [
        (206, {}, True),
        (206, {"content-range": "bytes 0-9/99"}, True),
        (206, {"content-range": "bytes 10-20/99"}, True),
        (206, {"content-range": "bytes 10-19/*"}, True),
        (200, {"content-encoding": "gzip"}, True),
        (416, {}, True),
        (400, {}, True),
        (500, {}, False),
        (302, {}, False),
        (204, {}, False),
    ],
    ids=str,
)
def test_odd_answers_are_told_apart(status, headers, final):
    """Some would be the same the next time, and some may not."""
    found = judge(status, headers, 10, 20, NOW)

    assert isinstance(found, Odd)
    assert found.final is final


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 12 "}, 12),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 -0000"}, 30),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({}, None),
    ],
    ids=str,
)
def test_waits_are_read(headers, seconds):
    """Seconds, a date, or what the hub says."""
    assert retry_after(headers, NOW) == seconds

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.job import Job
from common.pace import ENOUGH_RUNS, Sample, sample, seconds, work

AT = datetime(2026, 1, 1, tzinfo=UTC)
CLIP = {"width": 1280, "height": 704, "frames": 121, "steps": 8, "cfg": 1.0}
JOB = Job(
    id="one",
    service="fastwan",
    engine="comfyui",
    request=CLIP,
    created_at=AT,
    started_at=AT,
    completed_at=AT + timedelta(seconds=50),
    nodes={"Model": 20.0, "Sampler": 25.0},
)


def loads(title):
    """Tell the one loader."""
    return title == "Model"


@given(
    st.lists(
        st.tuples(st.floats(0.1, 1e4), st.floats(0.1, 1e3), st.floats(0, 1e3)),
        min_size=ENOUGH_RUNS,
        max_size=40,
    ),
    st.floats(0.1, 1e4),
)
def test_the_range_is_one(runs, wanted):
    """From low to high, and neither below zero."""
    low, high = seconds([Sample(*run) for run in runs], wanted)

    assert 0 <= low <= high


def test_twice_the_work_takes_twice_as_long():
    """But the weights are read once."""
    runs = [Sample(10.0, 20.0, 0.0)] * 20

    assert seconds(runs, 10.0) == (20.0, 20.0)
    assert seconds(runs, 20.0) == (40.0, 40.0)
    assert seconds([replace(run, load_s=30.0) for run in runs], 20.0) == (40.0, 70.0)


def test_too_few_runs_tell_nothing():
    """An unknown is better than a guess."""
    assert seconds([Sample(10.0, 20.0, 0.0)] * (ENOUGH_RUNS - 1), 10.0) is None
    assert seconds([], 10.0) is None


def test_one_odd_run_moves_little():
    """A run on a card that was busy otherwise is no measure."""
    runs = [Sample(10.0, 20.0, 0.0)] * 20

    assert seconds([*runs, Sample(10.0, 2000.0, 900.0)], 10.0) == (20.0, 20.0)


def test_runs_of_like_size_count():
    """A small run is mostly overhead and says little of a large one."""
    small = [Sample(0.1, 5.0, 0.0)] * 30
    large = [Sample(100.0, 50.0, 0.0)] * 30

    assert seconds(small + large, 90.0) == (45.0, 45.0)


def test_a_few_tiny_runs_do_not_count_where_one_is_alike():
    """Of a tiny clip all is overhead; alone, it is better than nothing."""
    tiny = [Sample(1.0, 5.0, 0.0)] * 5
    alike = [Sample(100.0, 50.0, 0.0)]

    assert seconds(tiny + alike, 100.0) == (50.0, 50.0)
    assert seconds(tiny + alike, 399.0) == (199.5, 199.5)
    assert seconds(tiny + alike, 1.0) == (5.0, 5.0)
    assert seconds(tiny, 100.0) == (500.0, 500.0)


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"steps": 16}, 2),
        ({"cfg": 3.5}, 2),
        ({"sampler": "heun"}, 2),
        ({"sampler": "euler"}, 1),
        ({"width": 640}, 0.5),
        ({"frames": 241}, 61 / 31),
        ({"seed": 9}, 1),
    ],
    ids=str,
)
def test_work_is_what_the_sampler_computes(change, factor):
    """Pixels, latent frames, steps, and a second evaluation for guidance."""
    assert work({**CLIP, **change}, "video") == pytest.approx(
        factor * work(CLIP, "video")
    )


def test_of_two_stages_each_has_its_guidance():
    """With one of two guided, half of the steps cost double."""
    plain = {name: value for name, value in CLIP.items() if name != "cfg"}
    one = work({**plain, "cfg_high_noise": 3.5, "cfg_low_noise": 1.0}, "video")

    assert one == pytest.approx(1.5 * work(CLIP, "video"))


def test_work_that_is_not_known_is_none():
    """A video as long as its speech; a picture of no stated size."""
    assert work({"width": 640, "height": 640, "frames": None}, "video") is None
    assert work({"width": None, "height": None}, "image") is None
    assert work({"width": 1000, "height": 1000, "steps": 8}, "image") == 8


def test_the_reading_of_weights_is_kept_apart():
    """It depends on the disk and not on the request."""
    found = sample(JOB, "video", loads)

    assert (found.run_s, found.load_s) == (30.0, 20.0)


@pytest.mark.parametrize(
    "change",
    [
        {"started_at": None},
        {"completed_at": AT - timedelta(seconds=1)},
        {"nodes": {"Model": 60.0}},
        {"request": {}},
    ],
    ids=str,
)
def test_a_run_without_times_tells_nothing(change):
    """Such as one whose clock was set back."""
    assert sample(replace(JOB, **change), "video", loads) is None

import pytest

from common.models.meter import Meter, Notice, Step


def test_a_plan_is_the_sum_of_its_files():
    """Files that are ready count whole, whatever their last notice said."""
    meter = Meter.of([("a", 100), ("b", 300), ("c", None)])
    meter.note(Notice("a", Step.READY), 0.0)
    meter.note(Notice("b", Step.DOWNLOADING, 50, 300), 0.0)

    assert (meter.done, meter.total) == (150, 400)
    assert meter.step is Step.DOWNLOADING


def test_the_rate_is_that_of_the_last_seconds():
    """What was long ago, and what lay there already, does not count."""
    meter = Meter.of([("a", 10_000)])
    meter.note(Notice("a", Step.DOWNLOADING, 5_000, 10_000), 0.0)
    assert meter.rate is None
    for second in range(1, 21):
        meter.note(Notice("a", Step.DOWNLOADING, 5_000 + 100 * second), second)

    assert meter.rate == pytest.approx(100)
    assert meter.eta_s == pytest.approx(30)


def test_nothing_arriving_has_no_eta():
    """A stalled plan does not promise an end."""
    meter = Meter.of([("a", 10)])
    for second in range(3):
        meter.note(Notice("a", Step.DOWNLOADING, 5, 10), second)

    assert meter.rate == 0
    assert meter.eta_s is None


def test_hashing_does_not_count_as_arriving():
    """A file that goes from verifying to downloading starts a new count."""
    meter = Meter.of([("a", 100)])
    meter.note(Notice("a", Step.VERIFYING, 100, 100), 0.0)
    meter.note(Notice("a", Step.DOWNLOADING, 0, 100), 1.0)
    meter.note(Notice("a", Step.DOWNLOADING, 20, 100), 2.0)

    assert meter.rate == pytest.approx(10)


def test_an_unknown_size_is_learnt():
    """The source said it."""
    meter = Meter.of([("a", None)])
    meter.note(Notice("a", Step.DOWNLOADING, 1, 7), 0.0)

    assert meter.total == 7


def test_a_plan_that_waits_for_another_process_says_so():
    """And one that is done is ready."""
    meter = Meter.of([("a", 1), ("b", 1)])
    meter.note(Notice("a", Step.READY), 0.0)
    meter.note(Notice("b", Step.WAITING), 0.0)
    assert meter.step is Step.WAITING
    meter.note(Notice("b", Step.READY), 0.0)
    assert meter.step is Step.READY


def test_what_another_process_fetches_arrives_all_the_same():
    """Its bytes count and its rate tells the time left; ours starts by itself."""
    meter = Meter.of([("a", 1_000), ("b", 1_000)])
    for second in range(5):
        meter.note(Notice("a", Step.WAITING, 100 * second, 1_000), second)
    assert meter.waiting
    assert (meter.done, meter.rate) == (400, pytest.approx(100))
    assert meter.eta_s == pytest.approx(16)

    meter.note(Notice("a", Step.READY, 1_000, 1_000), 5.0)
    meter.note(Notice("b", Step.DOWNLOADING, 0, 1_000), 5.0)
    assert not meter.waiting
    meter.note(Notice("b", Step.DOWNLOADING, 20, 1_000), 6.0)
    assert (meter.done, meter.rate) == (1_020, pytest.approx(20))


@pytest.mark.parametrize("step", [Step.FAILED, Step.STOPPED])
def test_a_file_that_fails_keeps_what_came_of_it(step):
    """The sum does not fall back: the next try goes on from there."""
    meter = Meter.of([("a", 100), ("b", 100)])
    meter.note(Notice("a", Step.DOWNLOADING, 60, 100), 0.0)
    meter.note(Notice("a", step, 0, 100, "the source is away"), 1.0)

    assert (meter.done, meter.step) == (60, step)
    assert meter.latest["a"].detail == "the source is away"

"""A rate is measured while bytes are waited for, and at no other time."""

from common.models.tempo import Tempo


def test_a_rate_is_over_a_window():
    """It is said once for each window, of the bytes that came in it."""
    tempo = Tempo(20.0)
    said = [tempo.note(0, 1000 * s, float(s), waiting=True) for s in range(100, 141)]

    assert [rate for rate in said if rate is not None] == [1000.0, 1000.0]
    assert said[20] == 1000.0


def test_a_source_is_not_charged_for_what_we_do():
    """While a disk is waited for, or nobody asks, the window stands still."""
    tempo = Tempo(20.0)
    tempo.note(0, 0, 0.0, waiting=True)
    assert tempo.note(0, 0, 19.0, waiting=True) is None
    assert tempo.note(0, 0, 500.0, waiting=False) is None

    assert tempo.note(0, 2100, 502.0, waiting=True) == 100.0


def test_another_source_begins_anew():
    """What the one before brought, or did not, is not the next one's."""
    tempo = Tempo(20.0)
    tempo.note(0, 0, 0.0, waiting=True)
    tempo.note(0, 5, 19.0, waiting=True)
    assert tempo.note(1, 5, 21.0, waiting=True) is None

    assert tempo.note(1, 2005, 41.0, waiting=True) == 100.0

import threading

from common.models.halt import Halt


def test_either_sign_stops():
    """Its own does not stop the others; the parent's stops all."""
    parent = threading.Event()
    one, other = Halt(parent), Halt(parent)
    one.set()
    assert (one.is_set(), other.is_set(), parent.is_set()) == (True, False, False)

    parent.set()
    assert other.is_set()


def test_who_waits_sees_the_parents_sign():
    """And returns at once when a sign is up, or when the time is over."""
    parent = threading.Event()
    halt = Halt(parent)
    assert not halt.wait(0)
    seen = []
    waiting = threading.Thread(target=lambda: seen.append(halt.wait(60)))
    waiting.start()
    parent.set()
    waiting.join(10)

    assert seen == [True]
    assert halt.wait()

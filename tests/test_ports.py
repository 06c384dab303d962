import os
import socket
import sys

import pytest

from common.ports import (
    NoFreePort,
    PortTaken,
    claim,
    holder,
    insisted,
    listen,
    next_free,
)

HERE = "127.0.0.1"


@pytest.fixture
def taken():
    """A port that this process listens on."""
    with listen(HERE, 0, only=True) as listening:
        yield listening.getsockname()[1]


def test_a_port_that_was_asked_for_is_the_one_or_an_error(taken):
    """A taken port that must be it is refused with the name of its holder."""
    with pytest.raises(PortTaken, match=rf"port {taken} is taken") as caught:
        listen(HERE, taken, only=True)

    assert sys.platform == "darwin" or f"pid {os.getpid()}" in str(caught.value)


def test_a_default_port_gives_way(taken):
    """A taken port that need not be it is left for a later one."""
    with listen(HERE, taken, only=False) as listening:
        assert listening.getsockname()[1] > taken


def test_the_next_free_port_is_free(taken):
    """It is later than the taken one, and can be bound."""
    port = next_free(HERE, taken)

    assert port > taken
    listen(HERE, port, only=True).close()


def test_a_claimed_port_is_nobody_elses(taken):
    """A child binds it seconds later; until then others go on to the next."""
    first = claim(HERE, taken)
    second = claim(HERE, taken)

    assert taken < first.port < second.port
    with listen(HERE, taken, only=False) as service:
        assert service.getsockname()[1] > second.port
    listen(HERE, first.port, only=True).close()
    first.release()
    second.release()


def test_a_port_that_was_insisted_on_is_nobody_elses(taken):
    """Others go on to the next; who insists too is told by the engine's start."""
    port = next_free(HERE, taken)
    first, second = insisted(port), insisted(port)
    other = claim(HERE, port)
    other.release()
    first.release()
    again = claim(HERE, port)
    again.release()

    assert first.port == second.port == again.port == port
    assert other.port > port


def test_a_port_that_was_released_can_be_claimed(taken):
    """It is the first one again."""
    claimed = claim(HERE, taken)
    claimed.release()
    again = claim(HERE, claimed.port)
    again.release()

    assert again.port == claimed.port


def test_a_port_can_be_claimed_where_nothing_can_be_locked(taken, monkeypatch):
    """Without a folder to write to, a port that is free has to do."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")

    assert claim(HERE, taken).port > taken


def test_zero_is_any_port():
    """Zero asks the system for one."""
    assert next_free(HERE, 0) > 0


def test_no_port_above_the_last():
    """Where the range ends there is nothing to go on to."""
    try:
        last = listen(HERE, 65535, only=True)
    except PortTaken:
        last = socket.socket()
    with last, pytest.raises(NoFreePort, match="65535"):
        listen(HERE, 65535, only=False)


def test_a_foreign_address_is_no_taken_port():
    """An address that this machine does not have is said as what it is."""
    with pytest.raises(OSError, match=r"."):
        listen("192.0.2.1", 0, only=False)


def test_a_listener_takes_connections_before_it_is_served(taken):
    """Who connects while the service starts waits instead of being refused."""
    with socket.create_connection((HERE, taken), timeout=5):
        pass


def test_nobody_holds_a_free_port():
    """A port that nobody listens on has no holder."""
    assert holder(next_free(HERE, 0)) is None

"""What a run that is ended says of the files that it did not get to."""

import threading
from types import SimpleNamespace

import pytest

from common.models.errors import NoSpace, Stopped
from common.models.leases import collecting
from common.models.meter import Step
from tests.models.shelf import shelf


@pytest.fixture
def shop(tmp_path):
    """A publisher of three files."""
    with shelf(tmp_path) as one:
        for name in "abc":
            one.put(f"{name}.safetensors")
        yield one


def ensured(ensurer, stop=None, heard=lambda notice: None):
    """Return the last notice of each file, and its error."""
    last = {}

    def notice(one):
        last[one.name] = one
        heard(one)

    results = ensurer.ensure_files(ensurer.files_of("m@1"), notice=notice, stop=stop)
    return list(last.values()), [one.error for one in results]


def test_what_a_stop_leaves_was_not_begun(shop):
    """It did not fail, and no other file's words are said of it."""
    stop = threading.Event()

    def heard(notice):
        if notice.step is Step.READY:
            stop.set()

    notices, errors = ensured(shop.ensurer(), stop, heard)

    assert [one.step for one in notices] == [Step.READY, Step.STOPPED, Step.STOPPED]
    assert [one.detail for one in notices] == [None, *["not begun: stopped"] * 2]
    assert errors[0] is None
    assert {type(error) for error in errors[1:]} == {Stopped}


def test_a_file_that_a_stop_cuts_says_so_itself(shop):
    """What came of it is kept, which those after it cannot say."""
    stop = threading.Event()

    def heard(notice):
        if notice.step is Step.DOWNLOADING:
            stop.set()

    shop.server.rate = 1000
    notices, errors = ensured(shop.ensurer(), stop, heard)

    assert {one.step for one in notices} == {Step.STOPPED}
    assert "what came is kept" in errors[0].message
    assert errors[1].message == "not begun: stopped"


def test_what_a_full_volume_leaves_was_not_begun(shop):
    """One file failed; the others have its code and its cure."""

    def full(*_):
        raise NoSpace("the root is full", "free some space")

    ensurer = shop.ensurer()
    ensurer.bringer = SimpleNamespace(bring=full, cached=lambda _: None)
    notices, errors = ensured(ensurer)

    assert [one.step for one in notices] == [Step.FAILED, Step.STOPPED, Step.STOPPED]
    assert [one.message for one in errors] == [
        "the root is full",
        *["not begun: the root is full"] * 2,
    ]
    assert {(one.code, one.hint) for one in errors} == {("no_space", "free some space")}


def test_a_stop_is_heard_while_the_root_is_cleaned(shop):
    """gc may take minutes, and nobody who ended us waits for it."""
    ensurer, stop = shop.ensurer(), threading.Event()
    stop.set()
    with collecting(ensurer.layers.writable), pytest.raises(Stopped):
        ensured(ensurer, stop)

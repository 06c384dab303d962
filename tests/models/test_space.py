import os
import sys

import pytest

from common.models.errors import NoSpace
from common.models.space import allocated, fallocate, preflight, reserve
from tests.models import mounts


def test_a_plan_that_fits_passes(tmp_path):
    """The free bytes come back, also for a folder that is not there yet."""
    assert preflight(1000, 0, tmp_path / "not" / "yet", margin=0) > 1000


def test_a_plan_that_cannot_fit_is_refused_with_numbers(tmp_path):
    """The message says what is needed, what is there and what is missing."""
    with pytest.raises(NoSpace, match=r"1000 TB .* too little") as caught:
        preflight(10**15, 0, tmp_path, margin=0)

    assert "gc" in caught.value.hint


def test_what_is_there_already_is_not_asked_for_again(tmp_path):
    """A partial file's bytes count; a plan that needs nothing needs no margin."""
    preflight(10**15, 10**15, tmp_path, margin=10**15)
    with pytest.raises(NoSpace):
        preflight(10**15, 10**15 - 1, tmp_path, margin=10**15)


def test_reserving_makes_the_file_long_and_keeps_its_bytes(tmp_path):
    """A partial file that is reserved again loses nothing."""
    path = tmp_path / "data"
    path.write_bytes(b"there")
    with path.open("r+b") as file:
        reserve(file.fileno(), 1 << 20)

    assert path.stat().st_size == 1 << 20
    assert path.read_bytes()[:5] == b"there"


@pytest.mark.skipif(sys.platform != "linux", reason="fallocate(2)")
def test_a_volume_without_fallocate_gets_a_sparse_file(tmp_path, monkeypatch):
    """What cannot be reserved is made long without writing a block."""
    monkeypatch.setattr("common.models.space._fallocate", lambda: None)
    path = tmp_path / "data"
    with path.open("wb") as file:
        assert not fallocate(file.fileno(), 1 << 20)
        reserve(file.fileno(), 1 << 20)

    assert path.stat().st_size == 1 << 20
    assert allocated(path) < 1 << 20


@pytest.mark.root
@mounts.root
@pytest.mark.parametrize("has_fallocate", [True, False])
def test_a_full_volume_refuses_a_reservation(tmp_path, monkeypatch, has_fallocate):
    """What does not fit is refused at once, and the file stays as it was."""
    if not has_fallocate:
        monkeypatch.setattr("common.models.space._fallocate", lambda: None)
    with mounts.tmpfs(tmp_path / "v", "size=1m") as volume:
        path = volume / "data"
        with path.open("wb") as file:
            file.write(b"there")
            file.flush()
            with pytest.raises(NoSpace):
                reserve(file.fileno(), 4 << 20)

            assert os.fstat(file.fileno()).st_size == 5
            reserve(file.fileno(), 512 << 10)
        with pytest.raises(NoSpace):
            preflight(1 << 20, 0, volume, margin=0)


@pytest.mark.root
@mounts.root
def test_ext2_has_no_fallocate(tmp_path):
    """Where the volume cannot reserve, nothing is written instead."""
    with mounts.ext2(tmp_path / "v", 4 << 20) as volume:
        with (volume / "data").open("wb") as file:
            assert not fallocate(file.fileno(), 4096)
            reserve(file.fileno(), 1 << 20)
            with pytest.raises(NoSpace):
                reserve(file.fileno(), 1 << 30)

        assert allocated(volume / "data") == 0


def test_allocated_of_nothing_is_nothing(tmp_path):
    """A file that is not there takes no room."""
    assert allocated(tmp_path / "x") == 0

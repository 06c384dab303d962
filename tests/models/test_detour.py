"""Files come to a disk of this machine before they come to the volume."""

import threading

import pytest

from common.models.errors import Stopped
from common.models.meter import Step
from tests.models.shelf import shelf
from tests.range_server import Fault

SIZE = 3_000_000


@pytest.fixture
def shop(tmp_path):
    """A publisher of one file, and a folder for what is on its way."""
    with shelf(tmp_path, rate=1 << 20) as one:
        one.put("a.safetensors", SIZE)
        yield one


def by_way(shop):
    return shop.ensurer(models_staging=shop.folder / "disk")


def left(shop):
    return [path for path in shop.folder.glob("disk/*/*") if path.exists()]


def test_a_file_comes_by_way_of_a_disk(shop):
    """It is fetched, then copied, told of both ways; nothing stays on the disk."""
    ensurer, notices = by_way(shop), []
    [one] = ensurer.ensure_files(ensurer.files_of("m@1"), notice=notices.append)

    assert one.error is None
    assert ensurer.status()[0].state == "ready"
    steps = list(dict.fromkeys(notice.step for notice in notices))
    assert steps == [Step.DOWNLOADING, Step.COPYING, Step.READY]
    assert list(one.sources) == [f"{shop.server.url}/a.safetensors"]
    assert one.fetched_bytes == one.path.stat().st_size
    assert left(shop) == []


def test_what_came_to_the_disk_is_kept_when_it_is_cut(shop):
    """The next call fetches only the rest; the volume had none of it."""
    ensurer, stop = by_way(shop), threading.Event()

    def notice(one):
        if one.done > SIZE // 2:
            stop.set()

    [one] = ensurer.ensure_files(ensurer.files_of("m@1"), notice=notice, stop=stop)
    assert isinstance(one.error, Stopped)
    before = shop.server.sent
    assert not list(shop.folder.glob("root/.staging/*/data"))

    again = by_way(shop)
    [one] = again.ensure_files(again.files_of("m@1"))
    assert one.error is None
    assert 0 < one.fetched_bytes < SIZE
    assert shop.server.sent < before + SIZE


def test_wrong_bytes_do_not_stay_on_the_disk(shop):
    """They come once more, and right."""
    bad = iter([Fault(flip=2_000_000)])
    shop.server.fault = lambda asked: (
        next(bad, None) if asked.method == "GET" and _spans(asked) else None
    )
    ensurer = by_way(shop)
    [one] = ensurer.ensure_files(ensurer.files_of("m@1"))

    assert one.error is None
    assert ensurer.verify(ensurer.files_of("m@1"), deep=True)[0].state == "verified"
    assert left(shop) == []


def _spans(asked):
    stop = int(asked.headers["range"].rpartition("-")[2])
    return asked.start <= 2_000_000 <= stop

import errno
import hashlib
import io
import random
from pathlib import Path

from common.models.salvage import LABEL, salvage
from common.models.segments import block_hashes, segment_hashes
from common.models.staging import BLOCK, Identity, Staging

SEGMENT = 2 << 20
DATA = random.Random(3).randbytes(5 << 20)
SEGMENTS = segment_hashes(block_hashes(memoryview(DATA), BLOCK), SEGMENT // BLOCK)
IDENTITY = Identity(len(DATA), hashlib.sha256(DATA).hexdigest())


def blocks(*mebibytes):
    """Return the blocks of some MiB."""
    each = (1 << 20) // BLOCK
    return [each * one + part for one in mebibytes for part in range(each)]


def salvaged(tmp_path, damaged):
    """Return the bytes that were saved, and the blocks that staging then has."""
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    folder = tmp_path / "staging"
    saved = salvage(path, folder, IDENTITY, SEGMENTS, SEGMENT)
    with Staging(folder, IDENTITY) as staging:
        assert {one.label for one in staging.written.values()} <= {LABEL}
        return saved, sorted(staging.written)


def test_only_what_is_wrong_has_to_come_again(tmp_path):
    """Good segments are in the staging, the damaged one is not."""
    damaged = bytearray(DATA)
    damaged[3 << 20] ^= 1

    assert salvaged(tmp_path, damaged) == (3 << 20, blocks(0, 1, 4))


def test_a_file_that_was_cut_gives_what_is_left_of_it(tmp_path):
    """A segment without its end is not saved."""
    assert salvaged(tmp_path, DATA[: (4 << 20) + 5]) == (4 << 20, blocks(0, 1, 2, 3))


def test_a_bad_sector_costs_its_segment(tmp_path, monkeypatch):
    """The disk refuses to read there; the rest is saved."""
    start = 2 << 20

    class Disk(io.BytesIO):
        def read(self, count):
            if self.tell() == start:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(count)

    whole = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, *a, **k: (
            Disk(DATA) if path.name == "damaged" else whole(path, *a, **k)
        ),
    )
    saved = salvage(tmp_path / "damaged", tmp_path / "s", IDENTITY, SEGMENTS, SEGMENT)

    assert saved == 3 << 20


def test_another_file_gives_nothing(tmp_path):
    """Nothing of it is mistaken for ours."""
    assert salvaged(tmp_path, bytes(len(DATA))) == (0, [])

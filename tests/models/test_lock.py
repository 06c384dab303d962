import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.manifest import WeightFile
from common.models.errors import BadManifest, Corrupt, ReadOnly
from common.models.lock import SEGMENT_BYTES, Lock

ROOT = Path(__file__).parent.parent.parent
A, B = "a" * 64, "b" * 64
X, Y = "a" * 32, "b" * 32


def weight(name="x.safetensors", **given):
    given.setdefault("unverified", "sha256" not in given)
    return WeightFile(name=name, folder="vae", sources=("local://x",), **given)


def test_what_is_recorded_is_read_again(tmp_path):
    """Size, sha256 and segments survive the process."""
    path = tmp_path / "volume" / "models.lock"
    size = SEGMENT_BYTES + 1
    Lock.load(path).record(weight(), size, A, [X, Y])

    pinned = Lock.load(path).of(weight())
    assert (pinned.size, pinned.sha256, pinned.segments) == (size, A, (X, Y))


def test_an_unverified_file_stays_what_it_was(tmp_path):
    """Other bytes are refused; the hint says what to remove."""
    path = tmp_path / "models.lock"
    lock = Lock.load(path).record(weight(), 10, A)

    with pytest.raises(Corrupt) as caught:
        lock.record(weight(), 10, B)
    with pytest.raises(Corrupt):
        Lock.load(path).check(weight(), 11, A)
    assert '"vae/x.safetensors"' in caught.value.hint
    assert str(path) in caught.value.hint
    assert Lock.load(path).of(weight()).sha256 == A


def test_a_removed_entry_takes_what_comes(tmp_path):
    """Removing the entry is how somebody says that the change is meant."""
    path = tmp_path / "models.lock"
    Lock.load(path).record(weight(), 10, A)
    path.write_text('{"schema": 1, "files": {}}')

    assert Lock.load(path).record(weight(), 10, B).of(weight()).sha256 == B


def test_another_process_may_have_been_first(tmp_path):
    """What was written since the lock was loaded counts, too."""
    path = tmp_path / "models.lock"
    early = Lock.load(path)
    Lock.load(path).record(weight(), 10, A)

    with pytest.raises(Corrupt):
        early.record(weight(), 10, B)


def test_the_manifest_counts_more_than_a_record(tmp_path):
    """A record of what the manifest no longer says is out of date, and replaced."""
    path = tmp_path / "models.lock"
    Lock.load(path).record(weight(), 10, A)
    pinned = weight(size=10, sha256=B)

    assert Lock.load(path).of(pinned) is None
    assert Lock.load(path).record(pinned, 10, B).of(pinned).sha256 == B
    with pytest.raises(Corrupt, match="the manifest says 10 and bbb"):
        Lock.load(path).record(pinned, 10, A)


def test_bytes_are_known_under_another_name(tmp_path):
    """Two names of the same bytes share their segments."""
    lock = Lock.load(tmp_path / "models.lock")
    lock = lock.record(weight("one.safetensors", size=9, sha256=A), 9, A, [X])

    other = lock.of(weight("two.safetensors", size=9, sha256=A))
    assert other.segments == (X,)


def test_a_known_size_is_checked_for_an_unverified_file(tmp_path):
    """The manifest may know the size and not the sha256."""
    with pytest.raises(Corrupt, match="the manifest says 10 and no sha256"):
        Lock.load(tmp_path / "models.lock").record(weight(size=10), 9, A)


def test_segments_are_kept_when_a_record_comes_without(tmp_path):
    """A deep check that only hashes the whole loses nothing."""
    lock = Lock.load(tmp_path / "models.lock").record(weight(), 9, A, [X])

    assert lock.record(weight(), 9, A).of(weight()).segments == (X,)


def test_an_earlier_lock_counts_and_the_last_is_written(tmp_path):
    """The lock beside the manifest is everybody's; the volume's holds the rest."""
    beside, volume = tmp_path / "models.lock", tmp_path / "volume.lock"
    Lock.load(beside).record(weight(), 9, A)
    before = beside.read_bytes()
    Lock.load(volume).record(weight(), 9, B)

    both = Lock.load(beside, volume)
    both.record(weight("y.safetensors"), 9, B)
    assert both.of(weight()).sha256 == A
    assert beside.read_bytes() == before
    assert set(json.loads(volume.read_bytes())["files"]) == {
        "vae/x.safetensors",
        "vae/y.safetensors",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "its schema is None"),
        ('{"schema": 2, "files": {}}', "its schema is 2, and this release reads 1"),
        ('{"schema": 1, "segment_bytes": 1}', "segment_bytes"),
        ('{"schema": 1, "files": {"a/b": {"size": 1, "sha256": "x"}}}', "a/b.sha256"),
        (
            f'{{"schema": 1, "files": {{"a/b": {{"size": 1, "sha256": "{A}",'
            f' "segments": ["{X}", "{X}"]}}}}}}',
            "2 segments, and 1 make the file",
        ),
    ],
    ids=["cut", "a list", "newer", "other segments", "no hash", "too many segments"],
)
def test_a_lock_of_another_form_is_refused(tmp_path, text, says):
    """Nothing is guessed, and nothing is overwritten."""
    path = tmp_path / "models.lock"
    path.write_text(text)

    with pytest.raises(BadManifest) as caught:
        Lock.load(path)
    assert says in caught.value.message
    assert str(path) in caught.value.message
    assert path.read_text() == text


def test_a_lock_that_cannot_be_written_says_so(tmp_path):
    """A read-only layer is no crash."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ReadOnly):
        Lock.load(tmp_path / "file" / "models.lock").record(weight(), 9, A)


def test_two_processes_lose_nothing(tmp_path):
    """Each one's records are there after both wrote at once."""
    path = tmp_path / "models.lock"
    script = (
        "import sys; from pathlib import Path;"
        "from common.manifest import WeightFile; from common.models.lock import Lock\n"
        "for n in range(15):\n"
        " file = WeightFile(name=f'{sys.argv[2]}{n}.safetensors', folder='vae',"
        " unverified=True, sources=('local://x',))\n"
        " Lock.load(Path(sys.argv[1])).record(file, 9, 'a' * 64)\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script, path, who], cwd=ROOT)
        for who in ("left", "right")
    ]

    assert [one.wait(60) for one in both] == [0, 0]
    assert len(Lock.load(path).files) == 30

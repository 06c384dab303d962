from common.models.layers import Layers, State
from common.models.publish import publish
from common.models.quarantine import quarantine
from common.models.staging import ARIA2, Identity, Staging
from common.models.usage import usage
from tests.models.tensors import fetched, file_of, placed, tensors

SIZE = 256 << 10


def test_shared_bytes_count_once(tmp_path):
    """Two models share a file, and two names share bytes: the disk has them once."""
    layers = Layers.open([tmp_path])
    one = file_of(tensors(1, SIZE), "one.safetensors")
    same = file_of(tensors(1, SIZE), "same.safetensors")
    own = file_of(tensors(2, SIZE), "own.safetensors")
    absent = file_of(tensors(3), "absent.safetensors")
    for file, seed in ((one, 1), (same, 1), (own, 2)):
        data = tensors(seed, SIZE)
        publish(layers.writable, file, fetched(layers.writable, file, data))
    mine = placed(layers.writable, file_of(b"", "mine.safetensors"), b"mine")
    bad = placed(layers.writable, file_of(b"", "bad.safetensors"), b"x" * 9000)
    quarantine(layers.writable, file_of(b""), bad, "bad")
    (layers.writable.staging("key") / "data").write_bytes(b"x" * 5000)

    found = usage(layers, {"a@1": [one, own], "b@1": [one, same, absent]})
    [layer] = found.layers

    assert found.models == {"a@1": one.size + own.size, "b@1": 2 * one.size}
    assert found.shared_bytes == 2 * one.size
    assert {f.name: f.models for f in found.files} == {
        "one.safetensors": ("a@1", "b@1"),
        "own.safetensors": ("a@1",),
        "same.safetensors": ("b@1",),
    }
    assert {f.state for f in found.files} == {State.VERIFIED}
    assert layer.naive_bytes == 2 * one.size + own.size + mine.stat().st_size
    assert layer.unknown_bytes == 4
    assert 2 * SIZE < found.bytes < 3 * SIZE
    assert layer.staging_bytes == 0
    assert layer.reserved_bytes >= 5000
    assert layer.quarantine_bytes >= 9000
    assert layer.trash_bytes == 0


def test_room_that_is_held_is_not_what_came(tmp_path):
    """A killed fetch holds the whole file's room, and has the blocks it wrote."""
    layers = Layers.open([tmp_path])
    folder = layers.writable.staging("key")
    with Staging(folder, Identity(SIZE, None), block=1 << 12) as staging:
        (folder / "data").write_bytes(b"x" * SIZE)
        assert usage(layers, {}).layers[0].staging_bytes == 0
        staging.write(1, memoryview(bytes(1 << 12)), "web")
    aria2 = layers.writable.staging("other")
    (aria2 / "data").write_bytes(b"x" * (8 << 12))
    (aria2 / ARIA2).write_bytes(b"")

    [layer] = usage(layers, {}).layers

    assert layer.staging_bytes == 9 << 12
    assert layer.reserved_bytes >= SIZE + (8 << 12)


def test_nothing_takes_nothing(tmp_path):
    """An empty layer, or one that is not there, is no error."""
    found = usage(Layers.open([tmp_path / "none", tmp_path / "v"]), {})

    assert (found.files, found.bytes) == ((), 0)

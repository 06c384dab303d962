import errno
import os
from pathlib import Path

import pytest

from common.models.layer import Layer
from common.models.layers import Layers, State
from common.models.naming import move
from common.models.publish import publish
from tests.models.tensors import fetched, file_of, tensors


def refuse(*args, **kwargs):
    raise OSError(errno.EXDEV, "another volume")


@pytest.mark.parametrize("mode", ["store", "direct"])
def test_models_may_be_a_link_to_another_volume(tmp_path, monkeypatch, mode):
    """What is published is found there by ComfyUI, and verified."""
    data, elsewhere, root = tensors(), tmp_path / "a" / "b" / "big", tmp_path / "root"
    elsewhere.mkdir(parents=True)
    root.mkdir()
    (root / "models").symlink_to(elsewhere)
    layer, rename = Layer.open(root, mode=mode), Path.rename

    def same_volume(one, other):
        volumes = {
            path.parent.resolve().is_relative_to(elsewhere) for path in (one, other)
        }
        return rename(one, other) if len(volumes) == 1 else refuse()

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "rename", same_volume)
    file = file_of(data)

    path = publish(layer, file, fetched(layer, file, data))

    assert path.read_bytes() == data
    assert (elsewhere / "vae" / file.name).read_bytes() == data
    assert Layers((layer,)).find(file).state is State.VERIFIED


def test_a_move_to_another_volume_is_a_copy_with_its_date(tmp_path, monkeypatch):
    """The receipt that names its time holds; nothing is left where it was."""
    data, path = tmp_path / "data", tmp_path / "named"
    data.write_bytes(b"x")
    os.utime(data, (5, 5))
    monkeypatch.setattr(os, "link", refuse)
    rename = Path.rename
    monkeypatch.setattr(
        Path, "rename", lambda a, b: refuse() if a == data else rename(a, b)
    )

    move(data, path)

    assert (path.read_bytes(), path.stat().st_mtime) == (b"x", 5)
    assert list(tmp_path.iterdir()) == [path]

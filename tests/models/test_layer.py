import json
import os
import sys

import pytest

from common.models import layer as module
from common.models.errors import BadManifest, NoSpace, ReadOnly
from common.models.layer import Layer
from tests.models import mounts


def test_a_new_root_is_probed_once(tmp_path, monkeypatch):
    """What a volume can do is written down; opening again asks the volume nothing."""
    first = Layer.open(tmp_path / "new" / "root")
    monkeypatch.setattr(module, "probe", None)

    assert Layer.open(tmp_path / "new" / "root") == first
    assert [path.name for path in first.root.iterdir()] == ["layer.json"]


def test_a_root_on_another_kind_of_volume_is_probed_again(tmp_path, monkeypatch):
    """A volume that moved is asked anew; a lock that lied once stays distrusted."""
    first = Layer.open(tmp_path)
    path = tmp_path / "layer.json"
    said = json.loads(path.read_text())
    said["capabilities"] |= {"filesystem": "nfs4", "flock": False, "hardlink": False}
    path.write_text(json.dumps(said))

    again = Layer.open(tmp_path)

    assert again.id == first.id
    assert again.capabilities.hardlink == first.capabilities.hardlink
    assert not again.capabilities.flock


def test_what_an_older_version_probed_too_is_passed_over(tmp_path, monkeypatch):
    """Its layer.json loads, asks the volume nothing, and is left as it is."""
    first = Layer.open(tmp_path)
    path = tmp_path / "layer.json"
    said = json.loads(path.read_text())
    said["capabilities"] |= {"rename_over": True, "o_excl": True, "fallocate": True}
    path.write_text(json.dumps(said))
    monkeypatch.setattr(module, "probe", None)

    assert Layer.open(tmp_path) == first
    assert json.loads(path.read_text()) == said


@pytest.mark.parametrize(
    "text",
    ['{"schema": 2, "id": "a"}', '{"schema": 1}', "{", "[]", '{"id": "a"}'],
    ids=["of tomorrow", "half", "no JSON", "no object", "no schema"],
)
def test_an_unknown_layer_is_refused(tmp_path, text):
    """What we do not understand we neither read nor write."""
    (tmp_path / "layer.json").write_text(text)
    for writable in (True, False):
        with pytest.raises(BadManifest, match=r"layer\.json"):
            Layer.open(tmp_path, writable=writable)

    assert (tmp_path / "layer.json").read_text() == text


def test_mode_and_date_are_kept(tmp_path):
    """What a layer was made as, it stays, until somebody says otherwise."""
    Layer.open(tmp_path, mode="direct", mtime_s=946_684_800)
    again = Layer.open(tmp_path)

    assert (again.mode, again.mtime_s) == ("direct", 946_684_800)
    assert Layer.open(tmp_path, mode="store").mode == "store"


def test_a_layer_that_is_only_read_needs_nothing_there(tmp_path):
    """Reading makes no file, and an absent root is an empty one."""
    layer = Layer.open(tmp_path / "none", writable=False)

    assert not layer.writable
    assert not (tmp_path / "none").exists()
    with pytest.raises(ReadOnly):
        layer.staging("key")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_root_without_permission_is_only_read(tmp_path):
    """A chmod'ed root is a read-only layer, not an error."""
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o555)
    try:
        assert not Layer.open(tmp_path).writable
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.root
@mounts.root
@pytest.mark.parametrize("made", [True, False], ids=["was a layer", "never was one"])
def test_a_read_only_mount_is_only_read(tmp_path, made):
    """So is a mount that takes no writes, for root as well."""
    with mounts.tmpfs(tmp_path / "v", "size=1m") as volume:
        if made:
            Layer.open(volume)
        mounts.read_only(volume)

        assert not Layer.open(volume).writable
        assert not Layer.open(volume / "below").writable


@pytest.mark.root
@mounts.root
def test_a_full_volume_is_no_space(tmp_path):
    """ENOSPC is said in our words, wherever it happens."""
    with mounts.tmpfs(tmp_path / "v", "size=64k,nr_inodes=8") as volume:
        layer = Layer.open(volume)
        with pytest.raises(NoSpace, match="is full"):
            [layer.staging(f"key{n}") for n in range(9)]


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/x", "a/../../x", "c:x", "a\\b", "a\0b", "a*"],
)
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    """No name of the manifest becomes a path outside of its folder."""
    with pytest.raises(BadManifest):
        Layer.open(tmp_path).view("vae", name)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_folders_are_for_the_group(tmp_path):
    """Two users of a shared volume can both publish."""
    folder = Layer.open(tmp_path).staging("key")

    assert folder.stat().st_mode & 0o7777 == 0o2775

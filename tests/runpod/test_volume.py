"""A network volume, and ComfyUI's map of it."""

import shlex
from pathlib import Path

import pytest

from common.models.path_map import FOLDERS
from common.runpod.volume import mounted
from common.settings import Settings


@pytest.fixture
def volume(tmp_path):
    """Return a volume that is mounted."""
    path = tmp_path / "runpod-volume"
    path.mkdir()
    return path


def test_comfyui_is_told_of_every_folder(tmp_path, volume):
    """Text encoders, audio encoders and all: not only of checkpoints."""
    before = Settings(comfyui_dir=tmp_path, comfy_launch_args="--fast")
    absent = tmp_path / "absent"

    after = mounted(before, tmp_path / "data", [absent, volume])

    *rest, flag, path = shlex.split(after.comfy_launch_args)
    assert (rest, flag) == (["--fast"], "--extra-model-paths-config")
    text = Path(path).read_text(encoding="utf-8")
    assert str(volume) in text
    for folder in FOLDERS:
        assert f"    {folder}: |" in text
    assert after.weights_root == volume
    assert Path(path).parent == tmp_path / "data"


def test_a_folder_that_is_named_stays(tmp_path, volume):
    """WAN_MODELS wins over what happens to be mounted."""
    named = tmp_path / "named"
    after = mounted(Settings(models=named), tmp_path / "data", [volume])

    assert after.weights_root == named


def test_without_a_volume_nothing_changes(tmp_path):
    """Weights in the image, or another's ComfyUI."""
    before = Settings(comfyui_dir=tmp_path)

    assert mounted(before, tmp_path / "data", [tmp_path / "absent"]) == before
    assert not (tmp_path / "data").exists()

"""A network volume, and ComfyUI's map of it."""

from pathlib import Path

import pytest

from common import engines
from common.models.path_map import FOLDERS
from common.runpod.volume import mounted
from common.settings import Settings


@pytest.fixture
def volume(tmp_path):
    """Return a volume that is mounted."""
    path = tmp_path / "runpod-volume"
    path.mkdir()
    return path


async def test_comfyui_is_told_of_every_folder(tmp_path, volume, monkeypatch):
    """Text encoders, audio encoders and all: not only of checkpoints; and once."""
    commands = []
    monkeypatch.setattr(
        engines, "_own", lambda command, *_, **__: commands.append(command)
    )
    (tmp_path / "main.py").touch()
    before = Settings(comfyui_dir=tmp_path, comfy_launch_args="--fast")

    after = mounted(before, [tmp_path / "absent", volume])
    engines.of(after, tmp_path / "data")

    (command,) = commands
    assert command.count("--extra-model-paths-config") == 1
    path = Path(command[command.index("--extra-model-paths-config") + 1])
    text = path.read_text(encoding="utf-8")
    assert str(volume) in text
    for folder in FOLDERS:
        assert f"    {folder}: |" in text
    assert after.weights_root == volume
    assert path.parent == tmp_path / "data"


def test_a_folder_that_is_named_stays(tmp_path, volume):
    """WAN_MODELS wins over what happens to be mounted."""
    named = tmp_path / "named"

    assert mounted(Settings(models=named), [volume]).weights_root == named


def test_without_a_volume_nothing_changes(tmp_path):
    """Weights in the image, or another's ComfyUI."""
    before = Settings(comfyui_dir=tmp_path)

    assert mounted(before, [tmp_path / "absent"]) == before

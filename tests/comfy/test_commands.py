"""The command lines of local engines."""

import sys

from common.comfy.commands import comfyui_command, embedded_command


def test_comfyui_command(tmp_path):
    """ComfyUI listens on loopback, and what the user adds comes last."""
    command = comfyui_command(tmp_path, "python3", 8188, "--lowvram --listen '::1'")

    assert command[:2] == ["python3", str(tmp_path / "main.py")]
    assert "--disable-metadata" in command
    assert command[-3:] == ["--lowvram", "--listen", "::1"]


def test_embedded_command(tmp_path):
    """The embedded engine runs under our own Python, its speed as short as it goes."""
    command = embedded_command(
        8188, tmp_path, 20.0, models=[tmp_path / "models", tmp_path / "image"]
    )

    assert command[:3] == [sys.executable, "-m", "common.engine"]
    assert command[command.index("--speed") + 1] == "20"
    folders = [str(tmp_path / name) for name in ("models", "image")]
    assert command[-4:] == ["--models", folders[0], "--models", folders[1]]


def test_comfyui_command_with_folders_of_its_own(tmp_path):
    """A ComfyUI whose folder is read-only keeps its files and database elsewhere."""
    home, paths = tmp_path / "home", tmp_path / "extra_model_paths.yaml"
    command = comfyui_command(
        tmp_path, "python3", 8188, "--lowvram", home=home, model_paths=paths
    )

    for name in ("input", "output", "temp", "user"):
        assert command[command.index(f"--{name}-directory") + 1] == str(home / name)
    assert command[command.index("--database-url") + 1].startswith("sqlite:///")
    assert command[-3:] == ["--extra-model-paths-config", str(paths), "--lowvram"]

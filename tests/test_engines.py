"""Which engines the settings ask for, and how ComfyUI is started."""

import asyncio
import os
from unittest.mock import AsyncMock

import pytest

from common import engines
from common.events import EngineFile
from common.ports import claim, next_free
from common.settings import BadSettings, Settings


@pytest.fixture
def comfyui(tmp_path):
    """Return a folder that looks like ComfyUI's."""
    folder = tmp_path / "comfyui"
    folder.mkdir()
    (folder / "main.py").touch()
    return folder


def command(settings, data):
    """Return the command line of the one engine."""
    (engine,) = engines.of(settings, data)
    return engine._process._command


async def test_an_engines_password_is_told_to_nobody(tmp_path, monkeypatch, caplog):
    """Not by /ready, which is open, and not in the log."""
    away = "http://joe:canary@127.0.0.1:9"
    (engine,) = engines.of(Settings.read(engine="comfyui", comfyui_url=away), tmp_path)
    monkeypatch.setattr(engine.comfy, "reconnect", AsyncMock())
    await engine.restart()

    assert engine.trouble() == "no ComfyUI answers at http://127.0.0.1:9"
    assert "http://127.0.0.1:9 needs a restart" in caplog.text
    assert "canary" not in caplog.text


def test_comfyui_that_is_writable(comfyui, tmp_path):
    """A ComfyUI of the user's own keeps its folders and finds its own weights."""
    found = command(Settings.read(comfyui_dir=comfyui), tmp_path / "data")

    assert "--output-directory" not in found
    assert "--extra-model-paths-config" not in found


def test_comfyui_that_is_read_only(comfyui, tmp_path, monkeypatch):
    """In an image, ComfyUI's files are beside ours."""
    writes = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != comfyui and writes(path, mode)
    )
    data = tmp_path / "data"
    found = command(Settings.read(comfyui_dir=comfyui), data)

    home = data / "comfyui"
    assert found[found.index("--output-directory") + 1] == str(home / "output")
    assert (home / "user").is_dir()


def test_weights_of_all_layers(comfyui, tmp_path):
    """ComfyUI is told of a volume's weights and of those in the image."""
    volume, baked = tmp_path / "volume", tmp_path / "baked"
    settings = Settings.read(
        comfyui_dir=comfyui, models=volume, models_layers=(str(baked),)
    )
    found = command(settings, tmp_path / "data")

    path = tmp_path / "data/extra_model_paths.yaml"
    assert found[found.index("--extra-model-paths-config") + 1] == str(path)
    text = path.read_text()
    assert text.index(str(baked)) < text.index(str(volume)) < text.index("is_default")
    assert not volume.exists()


def test_no_comfyui_there(tmp_path):
    """A folder without ComfyUI is said."""
    with pytest.raises(BadSettings, match="COMFYUI_DIR"):
        engines.of(Settings.read(comfyui_dir=tmp_path), tmp_path / "data")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"models": "volume"}, []),
        ({"models": "volume", "models_ensure": True}, ["--strict"]),
    ],
    ids=["nothing", "a volume", "a volume that is filled"],
)
def test_weights_of_the_embedded_engine(tmp_path, given, expected):
    """It offers those of a volume, and no others where they are fetched."""
    if given:
        given["models"] = tmp_path / given["models"]
    found = command(Settings.read(engine="embedded", **given), tmp_path / "data")

    if expected is None:
        assert "--models" not in found
    else:
        models = str(tmp_path / "volume" / "models")
        assert found[found.index("--models") + 1] == models
        assert [one for one in found if one == "--strict"] == expected


def test_weights_of_all_layers_of_an_engine_of_our_own(tmp_path):
    """The volume's count first, then those of the image."""
    volume, baked = tmp_path / "volume", tmp_path / "baked"
    found = command(
        Settings.read(engine="nunchaku", models=volume, models_layers=(str(baked),)),
        tmp_path / "data",
    )

    folders = ["--models", str(volume / "models"), "--models", str(baked / "models")]
    assert found[-4:] == folders


def test_weights_of_the_model_that_needs_no_comfyui(tmp_path, monkeypatch):
    """It is told where they are put, although nobody named a volume."""
    monkeypatch.chdir(tmp_path)
    found = command(Settings.read(engine="nunchaku"), tmp_path / "data")

    models = str(tmp_path / "data/weights/models")
    assert found[found.index("--models") + 1] == models


async def test_the_port_that_was_asked_for_is_claimed(tmp_path):
    """Another service that starts meanwhile looks further."""
    port = next_free("127.0.0.1", 18188)
    settings = Settings.read(engine="embedded", engine_port=port)
    (engine,) = engines.of(settings, tmp_path)
    other = claim("127.0.0.1", port)
    other.release()
    await engine.aclose()

    assert engine.comfy.url.endswith(f":{port}")
    assert other.port > port


@pytest.fixture
async def unwritable(tmp_path, monkeypatch):
    """Return an engine whose pid file cannot be written, and that file."""
    monkeypatch.setattr(engines, "RETRY_S", 0.05)
    pid_file = tmp_path / "engine.pid"
    pid_file.mkdir()
    settings = Settings.read(engine="embedded", engine_port=0, engine_speed=0)
    (engine,) = engines.of(settings, tmp_path)
    await engine.start()
    async with asyncio.timeout(20):
        while "cannot run the engine" not in (engine.trouble() or ""):
            await asyncio.sleep(0.01)
    yield engine, pid_file
    await engine.aclose()


async def test_a_first_start_that_the_disk_refuses_is_tried_again(unwritable):
    """It says so meanwhile, and needs nobody when there is room again."""
    engine, pid_file = unwritable
    pid_file.rmdir()
    await engine.comfy.wait_until_ready(20)

    assert engine.trouble() is None
    assert pid_file.is_file()


async def test_a_start_that_the_disk_refuses_can_be_given_up(unwritable):
    """No process is left, and closing raises nothing."""
    engine, _ = unwritable
    await engine.aclose()

    assert engine._process.pid is None


@pytest.fixture
def saver(comfyui, tmp_path):
    """Return an engine of our own, and a film that it saved."""
    film = comfyui / "output/wan/x/output_00001_.mp4"
    film.parent.mkdir(parents=True)
    film.touch()
    (engine,) = engines.of(Settings.read(comfyui_dir=comfyui), tmp_path / "data")
    return engine, film


def test_what_an_engine_of_ours_saved_is_found(saver):
    """Its output folder is known, so its files need no HTTP."""
    engine, film = saver

    assert engine.saved(EngineFile(film.name, "wan/x")) == film


def test_what_a_run_left_in_its_folders_goes(saver, comfyui):
    """Its inputs too; other prompts keep theirs."""
    engine, film = saver
    for prompt_id in ("x", "other"):
        (comfyui / "input/wan" / prompt_id).mkdir(parents=True)
    engine.tidy("x")

    assert not film.parent.exists()
    assert [p.name for p in (comfyui / "input/wan").iterdir()] == ["other"]


@pytest.mark.parametrize(
    "file",
    [
        EngineFile("gone.mp4", "wan/x"),
        EngineFile("output_00001_.mp4", "wan/x", "temp"),
        EngineFile("", "wan/x"),
        EngineFile("main.py", ".."),
        EngineFile("../../../../main.py", "wan/x"),
        EngineFile("link.mp4", "wan/x"),
    ],
    ids=["gone", "temporary", "a folder", "outside", "outside by name", "a link out"],
)
def test_nothing_else_is_found(saver, comfyui, file):
    """What is not a file in its output folder has to come over HTTP."""
    engine, film = saver
    film.with_name("link.mp4").symlink_to(comfyui / "main.py")

    assert engine.saved(file) is None

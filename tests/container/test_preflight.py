"""What is said of a machine before anything starts."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from common.container.machine import Card, Machine, memory_limit, sealed, usable, used
from common.container.preflight import Level, findings
from common.manifest import Manifest
from common.models.needs import needs
from common.service import find, load
from common.settings import Settings

CARD = Card("NVIDIA L40S", 48 << 30, (8, 9))
GOOD = Machine(256 << 30, (CARD,), (12, 8))


@pytest.fixture
def look(tmp_path):
    """Return the findings that are not fine, as {level: text}."""

    def found(machine=GOOD, service="wan2.2-14b-loras", http=True, **options):
        comfyui = tmp_path / "comfyui"
        comfyui.mkdir(exist_ok=True)
        options = {
            "engine": "comfyui",
            "comfyui_dir": comfyui,
            "data": tmp_path / "data",
            "models": tmp_path / "weights",
            "models_margin_gb": 0,
            **options,
        }
        settings = Settings.read(**options)
        return [
            (one.level, one.what + one.cure)
            for one in findings(
                load(find(service)), settings, machine, serves_http=http
            )
            if one.level is not Level.FINE and "GB free, and" not in one.what
        ]

    return found


def test_a_good_machine(look):
    """A machine that has everything is not complained of."""
    assert look() == []


@pytest.mark.parametrize(
    ("machine", "level", "text"),
    [
        (Machine(256 << 30), Level.FATAL, "--gpus all"),
        (Machine(256 << 30, (CARD,), (11, 8)), Level.FATAL, "driver to 570"),
        (Machine(256 << 30, (CARD,), (12, 4)), Level.WARNING, "driver to 570"),
        (
            Machine(256 << 30, (Card("Tesla P40", 24 << 30, (6, 1)),), (12, 8)),
            Level.WARNING,
            "6.1 is older than 7.5",
        ),
        (Machine(24 << 30, (CARD,), (12, 8)), Level.WARNING, "26 GB of memory"),
    ],
    ids=["no card", "old driver", "older driver", "old card", "little memory"],
)
def test_a_machine_that_lacks_something(look, machine, level, text):
    """Each lack is said with its cure; what nothing could work without is fatal."""
    (found,) = look(machine)

    assert found[0] is level
    assert text in found[1]


@pytest.mark.parametrize(
    "options",
    [
        {"comfyui_urls": ("http://10.0.0.1:8188",), "comfyui_dir": None},
        {"comfy_launch_args": "--cpu"},
    ],
    ids=["ComfyUI elsewhere", "on the CPU"],
)
def test_no_card_is_needed(look, options):
    """A container that runs no model on a card needs none."""
    assert look(Machine(256 << 30), **options) == []


def test_embedded_engine_says_so(look):
    """Nobody takes the embedded engine's pictures for the model's."""
    (found,) = look(Machine(1 << 30), engine="embedded")

    assert found[0] is Level.WARNING
    assert "paints" in found[1]


def test_key(look):
    """Without a key nothing is served to the net; a queue's worker serves nothing."""
    (found,) = look(host="0.0.0.0")

    assert found[0] is Level.FATAL
    assert "WAN_API_KEYS" in found[1]
    assert look(host="0.0.0.0", http=False) == []


@pytest.mark.parametrize(
    ("visible", "kept"),
    [
        (None, "ab"),
        ("", "ab"),
        ("1", "b"),
        ("1,0", "ba"),
        ("0,7,1", "a"),
        ("-1", ""),
        ("GPU-5c3", "ab"),
    ],
    ids=["unset", "blank", "one", "both", "an end", "none", "by name"],
)
def test_only_cards_that_are_used_count(visible, kept):
    """CUDA_VISIBLE_DEVICES as CUDA reads it; what we cannot tell leaves all."""
    a, b = replace(CARD, name="a"), replace(CARD, name="b")

    assert "".join(card.name for card in used((a, b), visible)) == kept


def test_nunchaku_is_for_qwen(look):
    """An engine that cannot run the service is fatal."""
    assert look(engine="nunchaku")[0][0] is Level.FATAL


def test_folders(look, tmp_path):
    """Data that cannot be kept is fatal; weights may be there already."""
    blocked = tmp_path / "file"
    blocked.touch()
    found = look(data=blocked / "data", models=blocked / "weights")

    assert [level for level, _ in found] == [Level.FATAL, Level.WARNING]
    assert "WAN_DATA" in found[0][1]
    assert "WAN_MODELS" in found[1][1]


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "1073741824\n"}, 1 << 30),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "2147483648\n"}, 2 << 30),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
    ids=["v2", "v2 none", "v1", "v1 none", "no groups"],
)
def test_memory_limit(tmp_path, files, limit):
    """The container's limit counts where it has one."""
    total = memory_limit(tmp_path / "nothing")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert memory_limit(tmp_path) == min(limit or total, total)


def test_usable_folders(tmp_path, monkeypatch):
    """A folder where something is mounted is better than the container's own."""
    own, volume = tmp_path / "own", tmp_path / "volume"
    own.mkdir()
    volume.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == volume)

    assert usable([own, tmp_path / "absent", volume]) == (volume, own)
    assert sealed([own, tmp_path / "absent", volume]) == ()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write")
def test_unwritable_folder_is_not_usable(tmp_path):
    """A volume that is mounted read-only takes no weights."""
    tmp_path.chmod(0o555)

    assert usable([tmp_path]) == ()


def test_a_mount_that_takes_no_writes_is_sealed(tmp_path, monkeypatch):
    """It may hold weights; a folder of the image's own that is so holds none."""
    own, volume = tmp_path / "own", tmp_path / "volume"
    own.mkdir()
    volume.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == volume)
    monkeypatch.setattr("common.container.machine.os.access", lambda *_: False)

    assert sealed([own, tmp_path / "absent", volume]) == (volume,)


def test_a_sealed_volume_is_said(look, tmp_path):
    """Somebody meant it to take the weights."""
    volume = tmp_path / "volume"
    machine = replace(GOOD, sealed=(volume,))

    assert look(machine) == []  # another one is named
    ((level, text),) = look(machine, models_layers=str(volume))
    assert level is Level.WARNING
    assert "cannot be written" in text
    assert "chown" in text


def test_weights_of_the_image_need_no_volume(look, tmp_path):
    """Where all is there nothing is written, so nobody is told to mount a volume."""
    service = "fastwan2.2-5b-packed"
    manifest = Manifest.load(Settings.read().models_manifest)
    for need in needs(load(find(service))):
        file = manifest.file(need.name)
        path = tmp_path / "image" / "models" / file.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as sparse:
            sparse.truncate(file.size)
    blocked = tmp_path / "file"
    blocked.touch()
    options = {"service": service, "models": blocked / "weights"}

    assert look(**options, models_layers=str(tmp_path / "image")) == []
    assert "WAN_MODELS" in look(**options)[0][1]

import signal
import sys

import pytest
import requests

from common import service as services
from common.cli.screen import Stop
from common.cli.services import service_of
from common.ports import listen, next_free

HERE = "127.0.0.1"
SERVICE = "fastwan2.2-5b-network-storage"


def test_a_taken_port_that_was_asked_for(wan):
    """It is refused with code 3 and the name of who holds it."""
    with listen(HERE, 0, only=True) as taken:
        port = taken.getsockname()[1]
        said = wan("serve", "fastwan2.2-5b-n", "--port", port)

    assert said.code == 3
    assert f"port {port} is taken" in said.err
    assert "hint:" in said.err


@pytest.mark.parametrize(
    ("variables", "arguments", "words"),
    [
        ({"WAN_PORT": "x"}, (), "WAN_PORT: "),
        ({"WAN_ENGINE": "magic"}, (), "WAN_ENGINE: "),
        ({}, ("--engine", "comfyui"), "COMFYUI_URL"),
        ({}, ("--comfyui-url", "gpu:8188"), "must start with http"),
        ({}, ("--host", "0.0.0.0"), "WAN_API_KEYS"),
        ({}, ("--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
    ],
)
def test_settings_that_cannot_be(wan, monkeypatch, variables, arguments, words):
    """They end the start with code 2 and a line that names them, not a traceback."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if "WAN_PORT" not in variables:
        arguments = (*arguments, "--port", 0)

    said = wan("serve", "fastwan2.2-5b-n", *arguments)

    assert said.code == 2
    assert words in said.err
    assert "Traceback" not in said.err


def test_a_data_folder_in_use(wan, service):
    """Two services never share a data folder."""
    said = wan("serve", "fastwan2.2-5b-n", "--port", 0, "--data", service.runtime.data)

    assert said.code == 2
    assert "another process serves from" in said.err


def test_a_data_folder_that_is_a_file(wan, tmp_path):
    """What cannot hold the data is said before anything starts."""
    (tmp_path / "file").touch()

    said = wan("serve", "fastwan2.2-5b-n", "--port", 0, "--data", tmp_path / "file")

    assert said.code == 2
    assert "choose another folder with --data" in said.err


def test_a_service_that_does_not_fit_its_workflow(wan, tmp_path, monkeypatch):
    """A wrapper that names a node that is not there ends with its title."""
    broken = tmp_path / "broken"
    broken.mkdir()
    source = services.find(SERVICE)
    text = (source / "workflow_api.json").read_text(encoding="utf-8")
    (broken / "workflow_api.json").write_text(
        text.replace('"Sampler"', '"Renamed"'), encoding="utf-8"
    )
    wrapper = (source / "api_wrapper.py").read_text(encoding="utf-8")
    (broken / "api_wrapper.py").write_text(wrapper, encoding="utf-8")
    monkeypatch.setattr(services, "find", lambda _name: broken)

    with pytest.raises(Stop, match="Sampler") as caught:
        service_of("broken")

    assert caught.value.code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a group cannot be sent Ctrl-C")
def test_serve_says_where_and_ends_cleanly(command, tmp_path):
    """It serves at the address it says, and Ctrl-C ends it with code 0."""
    port = next_free(HERE, 0)
    process = command(
        *(
            "serve",
            "fastwan2.2-5b-n",
            "--speed",
            0,
            "--port",
            port,
            "--data",
            tmp_path / "d",
        )
    )

    for line in process.stderr:
        if f"http://{HERE}:{port}" in line:
            break
    card = requests.get(f"http://{HERE}:{port}/", timeout=10).json()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)

    assert card["name"] == SERVICE
    assert process.returncode == 0
    assert "Traceback" not in rest


@pytest.mark.skipif(sys.platform == "win32", reason="a group cannot be sent Ctrl-C")
def test_the_engine_alone(command, tmp_path):
    """`wan engine embedded` answers as ComfyUI does, and ends with Ctrl-C."""
    port = next_free(HERE, 0)
    process = command(
        *("engine", "embedded", "--port", port, "--data", tmp_path / "e", "--speed", 0)
    )

    assert f":{port}" in process.stderr.readline()
    stats = requests.get(f"http://{HERE}:{port}/system_stats", timeout=10).json()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert stats["system"]["comfyui_version"]
    assert process.returncode == 0


def test_the_engine_does_not_share_a_port(wan, tmp_path):
    """A taken port is refused with code 3."""
    with listen(HERE, 0, only=True) as taken:
        port = taken.getsockname()[1]
        said = wan("engine", "embedded", "--port", port, "--data", tmp_path / "e")

    assert said.code == 3

from common.ports import listen, next_free
from tests.threaded import served

HERE = "127.0.0.1"
SERVICE = "fastwan2.2-5b-network-storage"


def test_doctor_finds_this_machine_fit(wan):
    """Each check is a line; a machine that runs the tests passes them."""
    said = wan("doctor")

    assert said.code == 0, said.out
    for word in ("✓ Python 3.", "packages import", "is writable", "database opens"):
        assert word in said.out


def test_doctor_names_cures(wan, monkeypatch, tmp_path):
    """What is wrong comes with what to do, and code 1."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("WAN_DATA", str(tmp_path / "file" / "data"))
    monkeypatch.setenv("COMFYUI_URL", f"http://{HERE}:{next_free(HERE, 0)}")

    said = wan("doctor")

    assert said.code == 1
    assert "✗ no ComfyUI answers at" in said.out
    assert "cannot be written" in said.out
    assert "set WAN_DATA to a folder of yours" in said.out
    assert "error: 2 of the checks failed" in said.err


def test_doctor_knows_our_services_from_others(wan, monkeypatch, service):
    """A port of ours is fine; one that somebody else holds is said."""
    monkeypatch.setenv("WAN_PORT", service.url.rpartition(":")[2])
    with listen(HERE, 0, only=True) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("WAN_ENGINE_PORT", str(port))
        said = wan("doctor")

    assert f"{SERVICE} runs" in said.out
    assert f"– port {port} is taken" in said.out
    assert said.code == 0


def test_doctor_refuses_a_named_port_that_is_taken(wan, monkeypatch):
    """A service that is told to use it would end with 3."""
    with listen(HERE, 0, only=True) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("WAN_PORT", str(port))
        said = wan("doctor")

    assert said.code == 1
    assert f"✗ port {port} is taken" in said.out
    assert "choose another WAN_PORT" in said.out


def test_doctor_knows_a_service_that_asks_for_its_key(wan, monkeypatch, tmp_path):
    """Without the key it is not said what it serves, but that it is ours."""
    with served(tmp_path / "service", api_keys="key-of-anna") as locked:
        monkeypatch.setenv("WAN_PORT", locked.url.rpartition(":")[2])
        said = wan("doctor")

    assert "a service of ours runs, and asks for its key" in said.out
    assert said.code == 0


def test_doctor_looks_for_the_comfyui_to_start(wan, monkeypatch, tmp_path):
    """A folder without ComfyUI's main.py is refused, as `wan serve` does."""
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path))
    said = wan("doctor")
    assert said.code == 1
    assert f"✗ there is no {tmp_path / 'main.py'}" in said.out
    assert "set COMFYUI_DIR to the folder" in said.out

    (tmp_path / "main.py").touch()
    said = wan("doctor")
    assert f"✓ ComfyUI in {tmp_path}" in said.out
    assert said.code == 0


def test_doctor_says_where_a_size_is_not_known(wan, monkeypatch, tmp_path):
    """More will come than the sum says."""
    monkeypatch.setenv("WAN_MODELS_ENSURE", "true")
    monkeypatch.setenv("WAN_MODELS", str(tmp_path / "weights"))

    assert "qwen-image-edit-nunchaku lacks over 16.84 GB: " in wan("doctor").out


def test_doctor_talks_to_the_engine(wan, monkeypatch, service):
    """A ComfyUI that is named and answers is said with its version."""
    monkeypatch.setenv("COMFYUI_URL", service.engine_url)

    assert f"at {service.engine_url}" in wan("doctor").out

    login = service.engine_url.replace("//", "//joe:canary@")
    monkeypatch.setenv("COMFYUI_URL", login)
    said = wan("doctor").out
    assert f"at {service.engine_url}" in said
    assert "canary" not in said


def test_doctor_looks_at_the_weights(wan, monkeypatch, tmp_path):
    """Where they go and what is absent; only a root that cannot be used is a fault."""
    monkeypatch.setenv("WAN_MODELS_ENSURE", "true")
    monkeypatch.setenv("WAN_MODELS", str(tmp_path / "weights"))
    said = wan("doctor")
    assert said.code == 0, said.out
    assert f"✓ weights go to {tmp_path / 'weights'}, " in said.out
    assert f"– {SERVICE} lacks 18.81 GB: " in said.out
    assert f"wan models ensure --service {SERVICE}" in said.out
    assert not (tmp_path / "weights").exists()

    (tmp_path / "weights").touch()
    said = wan("doctor")
    assert said.code == 1
    assert f"✗ {tmp_path / 'weights'} takes no weights: " in said.out
    assert "is not a folder" in said.out


def test_doctor_says_that_nobody_fetches_weights(wan, monkeypatch, service):
    """A ComfyUI of somebody's own, and no word of where its folder is."""
    monkeypatch.setenv("COMFYUI_URL", service.engine_url)

    assert "– weights are not fetched\n  set WAN_MODELS" in wan("doctor").out

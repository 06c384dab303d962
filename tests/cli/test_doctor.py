from common.ports import listen, next_free

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


def test_doctor_talks_to_the_engine(wan, monkeypatch, service):
    """A ComfyUI that is named and answers is said with its version."""
    monkeypatch.setenv("COMFYUI_URL", service.engine_url)

    assert f"at {service.engine_url}" in wan("doctor").out


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

import pytest

from common.settings import BadSettings, Settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """No variable of the machine that runs the tests counts."""
    import os

    for name in os.environ:
        if name.startswith(("WAN_", "COMFY")) or name == "LOG_LEVEL":
            monkeypatch.delenv(name)


def test_without_a_word_everything_has_a_default():
    """A laptop needs no setting at all."""
    settings = Settings.read()

    assert (settings.host, settings.port) == ("127.0.0.1", 8189)
    assert settings.engine_kind == "embedded"
    assert settings.engine_urls == ()
    assert not settings.public


@pytest.mark.parametrize(
    ("variables", "kind", "urls"),
    [
        ({"COMFYUI_URL": "http://gpu:8188/"}, "comfyui", ("http://gpu:8188",)),
        (
            {"COMFYUI_URLS": "http://a:1, http://b:2"},
            "comfyui",
            ("http://a:1", "http://b:2"),
        ),
        ({"COMFYUI_DIR": "/opt/comfyui"}, "comfyui", ()),
        (
            {"COMFYUI_URL": "http://a:1", "WAN_ENGINE": "embedded"},
            "embedded",
            ("http://a:1",),
        ),
    ],
    ids=["one", "several", "a folder", "embedded although named"],
)
def test_naming_a_comfyui_chooses_it(monkeypatch, variables, kind, urls):
    """The embedded engine is for when no other is named, or when asked for."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    settings = Settings.read()

    assert settings.engine_kind == kind
    assert settings.engine_urls == urls


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WAN_PORT", "eighty"),
        ("WAN_PORT", "70000"),
        ("WAN_MODELS_HEADERS", "{bad"),
        ("WAN_ENGINE", "magic"),
        ("WAN_QUEUE_LIMIT", "0"),
        ("COMFYUI_URL", "localhost:8188"),
        ("LOG_LEVEL", "loud"),
        ("WAN_RETENTION_HOURS", "-1"),
        ("WAN_API_KEYS_FILE", "/nowhere/keys"),
    ],
    ids=lambda value: value,
)
def test_nonsense_stops_the_start_with_its_name(monkeypatch, name, value):
    """The message names the variable, not the value, which may be a secret."""
    monkeypatch.setenv(name, value)

    with pytest.raises(BadSettings, match=name):
        Settings.read()


def test_what_is_left_blank_is_not_set(monkeypatch):
    """`.env` files and consoles pass on lines that nobody filled in."""
    for name in ("LOG_LEVEL", "WAN_MODELS", "WAN_JOB_TIMEOUT_S", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "")

    assert Settings.read() == Settings()
    assert Settings.read().models is None
    assert Settings.read().hf_endpoint.startswith("https://")


def test_keys_come_from_the_environment_and_a_file(monkeypatch, tmp_path):
    """And never show in a representation."""
    (tmp_path / "keys").write_text("second\n\nthird\n")
    monkeypatch.setenv("WAN_API_KEYS", "first")
    monkeypatch.setenv("WAN_API_KEYS_FILE", str(tmp_path / "keys"))

    settings = Settings.read()

    assert [k.get_secret_value() for k in settings.api_keys] == [
        "first",
        "second",
        "third",
    ]
    assert "first" not in repr(settings)


def test_what_is_given_on_the_command_line_wins(monkeypatch):
    """Options beat variables; options that were not given do not."""
    monkeypatch.setenv("WAN_PORT", "1111")
    monkeypatch.setenv("WAN_HOST", "0.0.0.0")

    settings = Settings.read(port=2222, host=None)

    assert (settings.port, settings.host) == (2222, "0.0.0.0")
    assert settings.public

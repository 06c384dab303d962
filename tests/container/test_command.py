"""`wan container` from the command line."""

import pytest
from typer.testing import CliRunner

from common.cli.main import app
from common.cli.screen import Stop


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command with --check."""
    monkeypatch.setenv("WAN_DATA", str(tmp_path))
    monkeypatch.setattr("common.container.settings.set_defaults", lambda _: None)

    def check(*words):
        result = CliRunner().invoke(app, ["container", *words, "--check"])
        if isinstance(result.exception, Stop):
            raise result.exception
        return result

    return check


def test_check(run):
    """--check only looks."""
    result = run("wan2.2-14b-loras")

    assert result.exit_code == 0, result.output
    assert "the embedded engine paints" in result.stderr


def test_no_service(run):
    """Without a service there is nothing to start."""
    with pytest.raises(Stop, match="which service"):
        run()


def test_service_of_the_image(run, monkeypatch):
    """An image names its service."""
    monkeypatch.setenv("WAN_SERVICE", "infinite-talk-v1")

    assert run().exit_code == 0


def test_fatal(run, monkeypatch):
    """A fatal finding stops the start, with its cure."""
    monkeypatch.setenv("WAN_HOST", "0.0.0.0")

    with pytest.raises(Stop, match="there is no key") as stop:
        run("wan2.2-14b-loras")
    assert "WAN_API_KEYS" in stop.value.hint

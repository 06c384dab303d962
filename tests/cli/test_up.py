import signal
import sys

import pytest
import requests

from common.cli import up
from common.ports import next_free

HERE = "127.0.0.1"

TINY = ("--width", 256, "--height", 256, "--frames", 5, "--steps", 2, "--seed", 7)


@pytest.mark.usefixtures("any_port")
def test_up_makes_a_clip_and_says_where(wan, tmp_path):
    """One command from nothing to a file, and with --once back again."""
    said = wan("up", "--once", *TINY, "--speed", 0, "--data", tmp_path / "d")

    assert said.code == 0, said.err
    path = said.out.strip()
    assert path.startswith(str(tmp_path / "d"))
    assert path.endswith("video.mp4")
    assert "FastWan 2.2 5B at http://127.0.0.1:" in said.err
    assert "embedded engine at http://127.0.0.1:" in said.err


def test_up_uses_what_runs_already(wan, service, tmp_path):
    """A service of ours at the port makes the clip; no second one is started."""
    port = int(service.url.rpartition(":")[2])

    said = wan(
        *("up", "generate", "a hare", *TINY, "--port", port),
        *("--out", tmp_path / "hare.mp4"),
    )

    assert said.code == 0, said.err
    assert "runs already at" in said.err
    assert (tmp_path / "hare.mp4").is_file()


@pytest.mark.usefixtures("any_port")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("frob",), 2, "do not understand 'frob'"),
        (("generate", "a", "b"), 2, "put the prompt in quotes"),
        (("--frames", 120), 1, "frames: must be 4n + 1"),
        (("--engine", "comfyui"), 2, "COMFYUI_URL"),
    ],
)
def test_up_says_what_is_wrong(wan, tmp_path, arguments, code, words):
    """Wrong words, options and settings end it with a line about them."""
    said = wan("up", *arguments, "--data", tmp_path / "d", "--speed", 0)

    assert said.code == code
    assert words in said.err
    assert "Traceback" not in said.err


@pytest.mark.skipif(sys.platform == "win32", reason="a group cannot be sent Ctrl-C")
@pytest.mark.usefixtures("any_port")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_up_serves_until_told_to_stop(command, tmp_path, number):
    """After the clip it goes on serving, and a signal ends it with code 0."""
    port = next_free(HERE, 0)
    process = command(
        *("up", *TINY, "--speed", 0, "--port", port, "--data", tmp_path / "d")
    )

    lines = []
    for line in process.stderr:
        lines.append(line)
        if "serving until Ctrl-C" in line:
            break
    assert requests.get(f"http://{HERE}:{port}/health", timeout=10).ok, lines
    process.send_signal(number)
    out, rest = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "Traceback" not in rest
    assert out.strip().endswith("video.mp4")
    # Only a store that was closed has folded its log into the file.
    assert [one.name for one in (tmp_path / "d").glob("jobs.sqlite3*")] == [
        "jobs.sqlite3"
    ]


def test_the_sample_has_a_prompt():
    """Without words there is a sample; with them the prompt is theirs."""
    assert up.prompt_of([]) == up.PROMPT
    assert up.prompt_of(["generate", "a hare"]) == "a hare"

import json
import logging

import pytest

from common import logs
from common.settings import Settings


@pytest.fixture
def restored():
    """Put the root logger back as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], _ = before
    root.setLevel(before[1])
    logging.captureWarnings(False)


def fail(text):
    """Make something to trace back."""
    raise ValueError(text)


@pytest.mark.parametrize(
    ("text", "secret", "kept"),
    [
        ("Authorization: Bearer abc.def-123", "abc.def-123", "Authorization: "),
        ("{'authorization': 'Basic dXNlcg=='}", "dXNlcg", "authorization"),
        ("Authorization: Bearer abc.def-123, accept: */*", "abc.def", "accept: */*"),
        ("X-API-Key: s3cr3t-key", "s3cr3t-key", "X-API-Key: "),
        ("{'x-api-key': 's3cr3t-key'}", "s3cr3t-key", "x-api-key"),
        ("token hf_AbCdEf0123456789 refused", "AbCdEf0123456789", "hf_"),
        ("rpa_0123456789ABCDEF", "0123456789ABCDEF", "rpa_"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYq", "whsec_"),
        (
            "GET https://b.s3/x.mp4?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=f00d1e",
            "f00d1e",
            "x.mp4?X-Amz-Credential=",
        ),
        ("https://x/y?sig=abcdef&se=2026", "abcdef", "se=2026"),
        ("postgresql+asyncpg://wan:pa55word@db/wan", "pa55word", "@db/wan"),
        ("the key is open-sesame, again open-sesame", "open-sesame", "the key is"),
    ],
    ids=[
        "bearer",
        "header dict",
        "header list",
        "api key",
        "api key dict",
        "hugging face",
        "runpod",
        "webhook",
        "signed url",
        "azure",
        "database",
        "configured",
    ],
)
def test_secrets_are_hidden(text, secret, kept):
    """A secret goes, and what tells a reader which one it was stays."""
    hidden = logs.Redaction(["open-sesame"])(text)

    assert secret not in hidden
    assert kept in hidden
    assert logs.HIDDEN in hidden


@pytest.mark.parametrize(
    "text",
    ["0b7c1234 running", "keys: prompt, seed", "http://127.0.0.1:8189/docs", ""],
)
def test_harmless_text_stays(text):
    """What holds no secret is not touched."""
    assert logs.Redaction(["", "open-sesame"])(text) == text


@pytest.mark.usefixtures("restored")
def test_a_traceback_holds_no_secret(capsys):
    """Secrets are removed from tracebacks too, and lines are for people."""
    logs.set_up(Settings.read(api_keys="open-sesame"))

    try:
        fail("refused open-sesame")
    except ValueError:
        logging.getLogger("common.x").exception("call with open-sesame failed")

    said = capsys.readouterr().err
    assert "open-sesame" not in said
    assert "ERROR   call with [hidden] failed" in said
    assert "ValueError: refused [hidden]" in said


@pytest.mark.usefixtures("restored")
def test_json_is_one_object_a_line(capsys):
    """With WAN_LOG_FORMAT=json even a traceback is one line."""
    logs.set_up(Settings.read(log_format="json", api_keys='quo"te'))

    try:
        fail('quo"te')
    except ValueError:
        logging.getLogger("common.x").exception("first\nsecond")

    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said["level"] == "error"
    assert said["logger"] == "common.x"
    assert said["message"] == "first\nsecond"
    assert said["time"].endswith("Z")
    assert "quo" not in said["traceback"]


@pytest.mark.usefixtures("restored")
def test_libraries_are_quiet(capsys):
    """What a library says at INFO is not shown; our own lines are."""
    logs.set_up(Settings.read())

    logging.getLogger("uvicorn.error").info("theirs")
    logging.getLogger("common.x").info("ours")

    said = capsys.readouterr().err
    assert "ours" in said
    assert "theirs" not in said


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("level", "shown"), [(None, False), ("warning", True)], ids=["default", "asked"]
)
def test_quiet_leaves_room_for_a_bar(capsys, level, shown):
    """While a bar is drawn only errors are said, unless a level was asked for."""
    logs.set_up(Settings.read(log_level=level), quiet=True)

    logging.getLogger("common.x").warning("careful")

    assert ("careful" in capsys.readouterr().err) is shown

"""
How the log looks: lines for people, or JSON; never with a secret in it.

Secrets are removed from the finished line, so also from tracebacks and from what other
libraries say.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TextIO

from common.settings import Settings

HIDDEN = "[hidden]"

# What these say at INFO is ours to say, or nobody's.
QUIET = (
    "aiohttp",
    "asyncio",
    "filelock",
    "libav",
    "PIL",
    "sqlalchemy",
    "urllib3",
    "uvicorn",
    "websocket",
    "websockets",
)

# Each keeps what tells a reader which secret it was.
_SECRETS = (
    re.compile(r"(?i)((?:proxy-)?authorization['\"]?\s*[:=]\s*['\"]?)[^'\"\r\n,}]+"),
    re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{4,}"),
    re.compile(r"(?i)(x-api-key['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]+"),
    re.compile(r"\b((?:hf|rpa|whsec)_)[A-Za-z0-9+/=_-]{4,}"),
    re.compile(r"(?i)([?&](?:x-amz-|x-goog-)[a-z-]+=)[^&\s'\"]+"),
    re.compile(r"(?i)([?&](?:signature|sig|token|api_key|apikey|key)=)[^&\s'\"]+"),
    re.compile(r"(\b[a-z][a-z0-9+]*://[^/\s:@]*:)[^@\s/]+(?=@)"),
)


class Redaction:
    """Removes secrets from text: those with a known form, and those named."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        named = sorted({one for one in secrets if one}, key=len, reverse=True)
        self._named = re.compile("|".join(map(re.escape, named))) if named else None

    def __call__(self, text: str) -> str:
        """Return the text without its secrets."""
        if self._named is not None:
            text = self._named.sub(HIDDEN, text)
        for pattern in _SECRETS:
            text = pattern.sub(rf"\g<1>{HIDDEN}", text)
        return text


class Text(logging.Formatter):
    """`10:13:02 warning  message`, and the traceback below it."""

    def __init__(self, redact: Redaction) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return self._redact(super().format(record))


class Json(logging.Formatter):
    """One object a line: time, level, logger, message and perhaps traceback."""

    def __init__(self, redact: Redaction) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(record.getMessage()),
        }
        if record.exc_info:
            line["traceback"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class Stderr(logging.StreamHandler[TextIO]):
    """Writes to stderr as it is at the moment; a progress bar may stand in for it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # found anew for each line
        """Today's stderr."""
        return sys.stderr


def secrets_of(settings: Settings) -> list[str]:
    """Return what an operator entrusted to us."""
    found = [key.get_secret_value() for key in settings.api_keys]
    if settings.database_url is not None:
        found.append(settings.database_url.get_secret_value())
    return found


def set_up(settings: Settings, *, quiet: bool = False) -> None:
    """
    Send every logger's lines to stderr in the form that the settings ask for.

    With `quiet`, errors only, unless a level was asked for: a person follows the job.
    """
    redact = Redaction(secrets_of(settings))
    handler = Stderr()
    handler.setFormatter(
        Json(redact) if settings.log_format == "json" else Text(redact)
    )
    asked = "log_level" in settings.model_fields_set
    level = "ERROR" if quiet and not asked else settings.log_level.upper()
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)

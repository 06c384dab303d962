"""What a person reads: data on stdout, all else on stderr, errors in a line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

FAILED = 1
WRONG_USE = 2
PORT_TAKEN = 3
NO_SERVICE = 4
INTERRUPTED = 130

WIDE = 240  # characters

EXIT_CODES = (
    "Exit codes: 0 done, 1 the job or a check failed, 2 wrong options or settings,"
    " 3 the port is taken, 4 no service answers, 130 interrupted."
)


# Plain help: it starts in half the time, and looks the same on every terminal.
PLAIN: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}


def called() -> str:
    """Return what a person types to run us: `wan`, or what start.py says."""
    return os.environ.get("WAN_COMMAND") or "wan"


class Stop(Exception):
    """The command ends here; the message says why, the hint what to do."""

    def __init__(self, message: str, hint: str | None = None, code: int = FAILED):
        super().__init__(message)
        self.hint = hint
        self.code = code


def put(data: str) -> None:
    """Write data to stdout."""
    with _written():
        typer.echo(data)


def draw(data: RenderableType) -> None:
    """Write a table to stdout."""
    with _written():
        console(sys.stdout).print(data)


@contextmanager
def _written() -> Iterator[None]:
    """Turn a stdout that takes nothing, such as a file on a full disk, into `Stop`."""
    try:
        yield
    except BrokenPipeError:
        raise  # the reader has had enough
    except OSError as error:
        _let_go_of_stdout()
        raise Stop(
            f"cannot write to stdout: {error.strerror}", "send it elsewhere"
        ) from None


def say(text: str) -> None:
    """Write a remark to stderr."""
    typer.echo(text, err=True)


def console(stream: TextIO | None = None) -> Console:
    """Return a console for stderr, or for `stream`; plain when that is no terminal."""
    from rich.console import Console

    stream = stream or sys.stderr
    # What goes into a file or a pipe is not cut to any width.
    width = None if stream.isatty() else WIDE
    return Console(file=stream, highlight=False, width=width)


def terminal() -> bool:
    """Tell whether a person watches stderr on something that can draw."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the errors that have a cure into `Stop`; others are bugs and stay."""
    from common.client import BadDownload, Refused, Unreachable
    from common.settings import BadSettings

    try:
        yield
    except BadSettings as error:
        raise Stop(str(error), code=WRONG_USE) from None
    except Unreachable as error:
        raise Stop(
            str(error),
            "start one with 'wan serve SERVICE', or name another with --url",
            NO_SERVICE,
        ) from None
    except BadDownload as error:
        raise Stop(str(error)) from None
    except Refused as error:
        raise Stop(complaint(error.detail, error.errors), key_hint(error)) from None


def complaint(detail: str, errors: list[dict[str, str]]) -> str:
    """Return a refusal as `field: message (hint)` lines."""
    lines = [
        f"{one['field']}: {one['message']}"
        + (f" ({one['hint']})" if one.get("hint") else "")
        for one in errors
    ]
    return "\n".join(lines) or detail


def key_hint(error: object) -> str | None:
    """Return how a key is given, where that is what was missing."""
    if getattr(error, "status", None) == 401:
        return "set WAN_API_KEY to a key of the service"
    return None


def guarded(run: Callable[[], object]) -> int:
    """Run a command; return its exit code, with an error said in a line or two."""
    try:
        run()
    except Stop as stop:
        if stop.code == INTERRUPTED:
            say(str(stop))
            return stop.code
        lines = str(stop).splitlines() or [""]
        say("\n".join([f"error: {lines[0]}", *(f"       {one}" for one in lines[1:])]))
        for one in _typed(stop.hint or "").splitlines():
            say(f"hint:  {one}")
        return stop.code
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `wan jobs list | head`
        _let_go_of_stdout()
    return 0


def _typed(hint: str) -> str:
    """Return a hint with the commands in it as they are typed here."""
    return re.sub(r"(?<=['`])wan(?= )", lambda _: called(), hint)


def _let_go_of_stdout() -> None:
    """Drop what stdout did not take: Python would complain of it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

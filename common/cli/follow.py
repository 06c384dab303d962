"""Follows a job to its end: a bar on a terminal, lines elsewhere, JSON when asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import requests

from common.calls import AGAIN
from common.cli.address import DEFAULT_URL
from common.cli.screen import (
    INTERRUPTED,
    NO_SERVICE,
    Stop,
    console,
    put,
    say,
    terminal,
)
from common.client import BadDownload, Refused, Unreachable
from common.sizes import human

if TYPE_CHECKING:
    from common.client import Client

Job = dict[str, Any]
Show = Callable[[Job], None]

WHY_S = 5.0  # a job that still waits then is told about
LINES = 10  # at most, of one stage


def follow(client: Client, job: Job, *, as_json: bool) -> Job:
    """
    Return the finished job; Ctrl-C cancels it.

    Raises:
        Stop: it did not succeed; the hint says what to do.
    """
    try:
        return outcome(watched(client, job, as_json=as_json))
    except KeyboardInterrupt:
        raise Stop(_canceled(client, job["id"]), code=INTERRUPTED) from None


def watched(client: Client, job: Job, *, as_json: bool) -> Job:
    """
    Show a job until it is over, and return it.

    Raises:
        Stop: the service went away; the hint says how to come back to the job.
    """
    last = job
    try:
        with _view(as_json) as show, explained(client, job["id"]):
            for last in client.watch(job["id"]):
                show(last)
    except Unreachable as error:
        raise Stop(str(error), kept(client, job["id"]), NO_SERVICE) from None
    except Refused as error:
        if error.status not in AGAIN:
            raise
        raise Stop(str(error), kept(client, job["id"])) from None
    return last


def outcome(job: Job) -> Job:
    """
    Return a job that succeeded.

    Raises:
        Stop: it did not; the hint says what to do.
    """
    if job["status"] == "succeeded":
        return job
    error = job["error"] or {}
    message = error.get("message")
    what = f": {message}" if message else f" is {job['status']}"
    raise Stop(f"job {job['id']}{what}", error.get("hint"))


def save(client: Client, job: Job, out: Path | None) -> list[Path]:
    """Download a job's outputs to `out`, a file or folder, or beside us; say where."""
    outputs = job["outputs"]
    paths = [_path(job, one["name"], out, alone=len(outputs) == 1) for one in outputs]
    for number, path in enumerate(paths):
        where = client.address_of(outputs[number]["url"])
        hint = f"{kept(client, job['id'])}; its file is at {where}"
        try:
            client.download(job, path, number)
        except Unreachable as error:
            raise Stop(str(error), hint, NO_SERVICE) from None
        except BadDownload as error:
            raise Stop(str(error), hint) from None
        except OSError as error:
            raise Stop(f"cannot write {path}: {error.strerror}", hint) from None
    return paths


def kept(client: Client, job_id: str) -> str:
    """Return how to come back to a job that we cannot follow to its file."""
    at = "" if client.url == DEFAULT_URL else f" --url {quote(client.url)}"
    return f"the job is kept: 'wan jobs watch {job_id}{at}' follows it"


def summary(job: Job) -> str:
    """Return what was made, in a line."""
    one = job["outputs"][0]
    parts = [f"{one['width']}×{one['height']}"]
    if one["frames"]:
        parts.append(f"{one['frames']} frames at {one['fps']:g} fps")
    parts.append(f"seed {job['request'].get('seed')}")
    parts.append(f"{job['timings']['total_s']:.1f} s")
    note = " (a preview by the embedded engine)" if job["engine"] == "embedded" else ""
    return ", ".join(parts) + note


def _path(job: Job, name: str, out: Path | None, *, alone: bool) -> Path:
    own = f"{job['service']}-{job['id'][:8]}{Path(name).suffix}"
    if out is None:
        return Path(own if alone else f"{job['id'][:8]}-{name}")
    if out.is_dir():
        return out / (own if alone else name)
    return out if alone else out.with_name(f"{out.stem}-{name}")


def _canceled(client: Client, job_id: str) -> str:
    """Ask the service to stop, and return what came of it."""
    with client.hasty() as asked:
        try:
            asked.cancel(job_id)
        except (Refused, Unreachable, requests.RequestException):
            return f"could not cancel job {job_id}; it may go on"
    return f"canceled job {job_id}"


@contextmanager
def explained(
    client: Client, job_id: str, after_s: float = WHY_S
) -> Iterator[threading.Timer]:
    """Say why the job waits, if it does after a while: nothing else would."""

    def explain() -> None:
        with client.hasty() as other:
            try:
                waits = other.get(job_id)["status"] == "queued"
                missing = other.ready()["missing"] if waits else []
            except (Refused, Unreachable, requests.RequestException, KeyError):
                return
        for one in missing:
            hint = f" ({one['hint']})" if one.get("hint") else ""
            say(f"waiting: {one['message']}{hint}")

    timer = threading.Timer(after_s, explain)
    timer.daemon = True
    timer.start()
    try:
        yield timer
    finally:
        timer.cancel()


@contextmanager
def _view(as_json: bool) -> Iterator[Show]:
    if as_json:
        yield lambda job: put(json.dumps(job, ensure_ascii=False))
    elif terminal():
        with _bar() as show:
            yield show
    else:
        yield _lines()


def _lines() -> Show:
    """Return what writes a line for each new stage, and for each tenth of one."""
    last = ("", 0)

    def show(job: Job) -> None:
        nonlocal last
        done = _done(job["progress"])
        now = (_stage(job), int(done * LINES))
        if now != last:
            say(f"{now[0]} ({done:.0%})")
            last = now

    return show


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=40),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console(), transient=True) as progress:
        task = progress.add_task("queued", total=1.0, detail="")

        def show(job: Job) -> None:
            now = job["progress"]
            progress.update(
                task, completed=_done(now), description=_stage(job), detail=_rest(now)
            )

        yield show


def _done(now: dict[str, Any]) -> float:
    """Return how much is done, from 0 to 1, of the run or of the download before it."""
    if total := now.get("total_bytes"):
        return float(now["done_bytes"] / total)
    return float(now["value"])


def _stage(job: Job) -> str:
    if job["progress"].get("total_bytes"):
        return str(job["progress"]["stage"])
    if job["status"] == "queued" and job["queue_position"]:
        return f"queued, {job['queue_position']} before it"
    if job["status"] in ("queued", "canceling"):
        return str(job["status"])
    return str(job["progress"]["stage"])


def _rest(now: dict[str, Any]) -> str:
    """
    Return step and time left.

    >>> _rest({"step": 3, "steps": 8, "eta_s": 12.4})
    'step 3/8, 12 s left'
    """
    parts = [f"step {now['step']}/{now['steps']}"] if now["step"] else []
    if total := now.get("total_bytes"):
        parts.append(f"{human(now['done_bytes'])} of {human(total)} of weights")
    if now["eta_s"] is not None:
        parts.append(f"{now['eta_s']:.0f} s left")
    return ", ".join(parts)

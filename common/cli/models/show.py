"""How far files are: bars on a terminal, lines elsewhere, JSON asked for; Ctrl-C."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from common.cli.screen import console, say, terminal
from common.sizes import human

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from common.models.meter import Meter, Notice, Tell

LINE_S = 2.0  #: between two lines about a file whose step is the same
NUMBERS = 52  #: characters that percent, bytes, rate and time take beside a bar


@contextmanager
def watching(
    files: Iterable[tuple[str, int | None]], *, as_json: bool = False
) -> Iterator[Tell]:
    """Show files, given as names and sizes, while the block runs."""
    from common.models.meter import Meter

    meter, lock = Meter.of(files), threading.Lock()
    drawn = terminal() and not as_json
    with _bars(meter) if drawn else _lines(meter, as_json=as_json) as show:

        def tell(notice: Notice) -> None:
            with lock:  # threads that fetch tell, each when it likes
                before = meter.latest.get(notice.name)
                meter.note(notice, time.monotonic())
                show(before, notice)

        yield tell


Show = Callable[["Notice | None", "Notice"], None]


@contextmanager
def _lines(meter: Meter, *, as_json: bool) -> Iterator[Show]:
    """Write a line for each new step, and every two seconds."""
    from common.models.meter import Step

    told: dict[str, float] = {}

    def show(before: Notice | None, now: Notice) -> None:
        new = before is None or before.step is not now.step
        if before is None and now.step is Step.READY:
            return  # it was there, and nothing is done about it
        if new or time.monotonic() - told.get(now.name, 0.0) >= LINE_S:
            told[now.name] = time.monotonic()
            if as_json:
                say(json.dumps(line(meter, now), ensure_ascii=False))
            else:
                say(plain(now, meter.rate))

    yield show


def plain(now: Notice, rate: float | None) -> str:
    """Return how far a file is, for people who read a log."""
    from common.models.meter import Step

    match now.step:
        case Step.READY:
            return f"{now.name}: ready" + (f", {human(now.total)}" if now.total else "")
        case Step.FAILED:
            return f"{now.name}: failed"  # why, is said in the end
        case Step.DOWNLOADING | Step.COPYING:
            return f"{now.name}: {now.step.value}, {doing(now, rate)}"
        case _:
            return f"{now.name}: {doing(now, rate)}"


def line(meter: Meter, now: Notice) -> dict[str, Any]:
    """Return how far a file and the whole plan are, as JSON."""
    rate = meter.rate
    return {
        "file": now.name,
        "step": now.step.value,
        "done_bytes": now.done,
        "total_bytes": now.total,
        "detail": now.detail,
        "all": {
            "done_bytes": meter.done,
            "total_bytes": meter.total,
            "rate_bytes_s": None if rate is None else round(rate),
            "eta_s": meter.eta_s,
        },
    }


@contextmanager
def _bars(meter: Meter) -> Iterator[Show]:
    """Draw a bar for each file that something is done about, and one for them all."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from common.models.meter import Step

    screen = console()
    name = min(max(screen.width - NUMBERS - 24, 16), 44)
    width = min(max(screen.width - NUMBERS - name, 8), 24)

    def progress() -> Progress:
        text = TextColumn("{task.description}", markup=False)
        rest = TextColumn("{task.fields[rest]}", markup=False)
        bar = BarColumn(bar_width=width)
        return Progress(text, bar, TaskProgressColumn(), rest, console=screen)

    each, whole = progress(), progress()
    every = whole.add_task("all".ljust(name), total=None, rest="")
    rows: dict[str, TaskID] = {}
    with Live(Group(each, whole), console=screen, transient=True):

        def show(before: Notice | None, now: Notice) -> None:
            done, total = meter.done, max(meter.total, 1)
            whole.update(every, total=total, completed=done, rest=rest_of(meter))
            over = now.step in (Step.READY, Step.FAILED, Step.STOPPED)
            hashed = now.step is Step.VERIFYING and now.done == now.total
            if over or hashed:
                if now.name in rows:
                    each.remove_task(rows.pop(now.name))
                if now.step is Step.READY and before is not None:
                    _tick(screen, now)
                return
            if now.name not in rows:
                title = short(now.name, name)
                rows[now.name] = each.add_task(title, total=None, rest="")
            each.update(
                rows[now.name],
                total=now.total,
                completed=now.done,
                rest=doing(now, meter.rate),
            )

        yield show


def _tick(screen: Console, now: Notice) -> None:
    size = f"  {human(now.total)}" if now.total else ""
    screen.print(f"✓ {now.name}{size}", markup=False, soft_wrap=True)


def short(path: str, width: int) -> str:
    """
    Return a file's name in so many characters; the end tells more than the beginning.

    >>> short("vae/a.safetensors", 10), short("vae/b", 6)
    ('…fetensors', 'b     ')
    """
    name = path.rpartition("/")[2]
    return name.ljust(width) if len(name) <= width else f"…{name[1 - width :]}"


def doing(now: Notice, rate: float | None) -> str:
    """Return what is done about a file, how fast, and for how long still."""
    from common.models.meter import Step

    if now.step is Step.WAITING:
        return f"waits for {now.detail or 'another process'}"
    done = human(now.done)
    parts = [f"{done} of {human(now.total)}" if now.total else done]
    if now.step is Step.VERIFYING:
        parts.insert(0, "hashing")
    if rate and now.total and now.total > now.done:
        parts.append(f"{duration((now.total - now.done) / rate)} left")
    return ", ".join(parts)


def rest_of(meter: Meter) -> str:
    """Return bytes, rate and time left of the plan."""
    parts = [f"{human(meter.done)} of {human(meter.total)}"]
    if rate := meter.rate:
        parts.append(f"{human(rate)}/s{' of another process' * meter.waiting}")
    if (eta := meter.eta_s) is not None:
        parts.append(f"{duration(eta)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """
    Return a time for people.

    >>> duration(7.6), duration(95), duration(7300)
    ('8 s', '1:35 min', '2:01 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """Lend an event that Ctrl-C and SIGTERM set; twice, they end us at once."""
    stop = threading.Event()

    def hear(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        # Not here: the main thread may be inside the event's own lock just now.
        threading.Thread(target=stop.set).start()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, hear) for one in signals]
    try:
        yield stop
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)

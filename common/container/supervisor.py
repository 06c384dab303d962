"""
Keeps programs up as a container's first process: Linux only, one thread, no event loop.

It starts each program in a group of its own, starts it again when it ends, later each
time, buries whatever orphan is handed to it, and on SIGTERM lets the service drain
before the helpers that carry its traffic are ended.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from common.comfy.oom import SIGKILLED, oom_kills
from common.container.plan import Kind, Program

log = logging.getLogger(__name__)

BACKOFF_S = (1.0, 60.0)  #: first and longest wait after a crash
STEADY_S = 300.0  #: a program that stood so long starts the back-off anew
GIVE_UP = 5  #: crashes of the service in a row, none of which it stood `STEADY_S`
TERM_S = 10.0  #: for a helper to end
NOT_FOUND = 127  #: as a shell says it
#: Exit codes that another try does not change: wrong settings, a taken port.
FINAL = frozenset({0, 2, 3})


@dataclass
class _Running:
    """One program and where it stands."""

    program: Program
    wait_s: float  #: before the next start
    pid: int | None = None
    began: float = 0.0
    due: float | None = 0.0  #: when to start it; None = not to be started
    kills: int = 0  #: of the kernel's, for memory, when it began
    crashes: int = 0  #: in a row
    deadline: float | None = None  #: when to kill it


class Supervisor:
    """
    Runs programs until the service ends for good or a signal says to stop.

    Args:
        grace_s: from SIGTERM to SIGKILL for the service; more than its own drain.
        count_kills: how often the kernel has killed for memory so far.
    """

    def __init__(
        self,
        programs: Iterable[Program],
        *,
        grace_s: float,
        backoff_s: tuple[float, float] = BACKOFF_S,
        steady_s: float = STEADY_S,
        give_up: int = GIVE_UP,
        term_s: float = TERM_S,
        count_kills: Callable[[], int] = oom_kills,
    ) -> None:
        self._all = [_Running(one, backoff_s[0]) for one in programs]
        self._grace_s = grace_s
        self._backoff_s = backoff_s
        self._steady_s = steady_s
        self._give_up = give_up
        self._term_s = term_s
        self._count_kills = count_kills
        self._stopping = False
        self._asked = False  # by a signal, so that 0 is the right code
        self._code = 0

    def run(self) -> int:
        """Start everything; return the container's exit code when all has ended."""
        if sys.platform != "linux":
            raise RuntimeError("a container's first process runs on Linux")
        stops = {signal.SIGTERM, signal.SIGINT}
        heard = {*stops, signal.SIGCHLD}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
        try:
            while True:
                self._start_due()
                self._kill_overdue()
                if self._stopping and not self._alive():
                    return self._code
                got = signal.sigtimedwait(heard, self._pause())
                if got is not None and got.si_signo in stops:
                    self._stop(got.si_signo)
                self._reap()
        finally:
            for one in self._alive():
                self._signal(one, signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _alive(self) -> list[_Running]:
        return [one for one in self._all if one.pid is not None]

    def _pause(self) -> float:
        """Return how long nothing is to be done unless a signal comes."""
        times = [one.due for one in self._all if one.due is not None]
        times += [one.deadline for one in self._alive() if one.deadline is not None]
        return max(0.0, min(times, default=time.monotonic() + 60) - time.monotonic())

    def _start_due(self) -> None:
        for one in self._all:
            if one.due is not None and one.due <= time.monotonic():
                one.due = None
                one.began, one.kills = time.monotonic(), self._count_kills()
                try:
                    one.pid = _spawn(one.program)
                except OSError as error:
                    why = f"cannot run {one.program.command[0]}: {error.strerror}"
                    self._ended(one, NOT_FOUND, why)
                else:
                    log.info("%s started, pid %d", one.program.name, one.pid)

    def _kill_overdue(self) -> None:
        for one in self._alive():
            if one.deadline is not None and one.deadline <= time.monotonic():
                log.warning("%s did not end in time: killed", one.program.name)
                one.deadline = None
                self._signal(one, signal.SIGKILL)

    def _reap(self) -> None:
        """Bury every process that ended: ours, and orphans that became ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            one = next((one for one in self._alive() if one.pid == pid), None)
            if one is None:
                log.debug("buried an orphan, pid %d", pid)
                continue
            self._signal(one, signal.SIGKILL)  # what is left of its group
            one.pid = one.deadline = None
            self._ended(one, os.waitstatus_to_exitcode(status))

    def _ended(self, one: _Running, code: int, why: str = "") -> None:
        name, kind = one.program.name, one.program.kind
        if self._stopping:
            log.info("%s ended (%s)", name, _said(code))
            if kind is Kind.SERVICE:
                self._code = 0 if self._asked and code in (0, -15) else _exit_code(code)
                self._end_helpers()
            return
        if kind is Kind.TASK and code == 0:
            log.info("%s is done", name)
            return
        if kind is Kind.SERVICE and code in FINAL:
            log.info("%s ended (%s): so does the container", name, _said(code))
            self._finish(code)
            return
        if code in SIGKILLED and self._count_kills() > one.kills:
            why = (
                "the kernel killed it because the container was out of memory: give"
                " the container more, or ask for smaller or shorter clips"
            )
        steady = time.monotonic() - one.began >= self._steady_s
        one.crashes = 1 if steady else one.crashes + 1
        if kind is Kind.SERVICE and one.crashes >= self._give_up:
            log.error(
                "%s ended (%s) %d times in a row: giving up. %s",
                *(name, _said(code), one.crashes, why),
            )
            self._finish(_exit_code(code))
            return
        first, longest = self._backoff_s
        wait_s = first if steady else one.wait_s
        one.wait_s = min(2 * wait_s, longest)
        one.due = time.monotonic() + wait_s
        log.error("%s ended (%s), again in %g s. %s", name, _said(code), wait_s, why)

    def _stop(self, number: int) -> None:
        """Pass a signal on to the service; its end ends the rest."""
        name = signal.Signals(number).name
        log.info("%s: stopping, up to %.0f s", name, self._grace_s)
        first, self._stopping, self._asked = not self._stopping, True, True
        services = [one for one in self._alive() if one.program.kind is Kind.SERVICE]
        for one in self._all:
            one.due = None
        for one in services:
            if first:
                one.deadline = time.monotonic() + self._grace_s
            # To it alone: its engine must live while it drains.
            assert one.pid is not None
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGTERM)
        if not services:
            self._end_helpers()

    def _finish(self, code: int) -> None:
        """End the container because its service ended."""
        self._stopping, self._code = True, code
        for one in self._all:
            one.due = None
        self._end_helpers()

    def _end_helpers(self) -> None:
        for one in self._alive():
            self._signal(one, signal.SIGTERM)
            one.deadline = time.monotonic() + self._term_s

    @staticmethod
    def _signal(one: _Running, number: int) -> None:
        assert one.pid is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(one.pid, number)


def _spawn(program: Program) -> int:
    """Start a program in a group of its own, with no signal blocked."""
    if sys.platform != "linux":
        raise OSError("Linux only")
    return os.posix_spawnp(
        program.command[0],
        program.command,
        dict(program.env),
        setpgroup=0,
        setsigmask=[],
        setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGPIPE],
    )


def _exit_code(code: int) -> int:
    """Return a program's end as a shell would: 128 and the signal's number."""
    return 128 - code if code < 0 else code


def _said(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"

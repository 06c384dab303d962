"""
Starts a local engine and keeps it up.

It is started again, later each time, when it dies, and at once when asked to: for an
interrupt it ignores, a dead worker behind a living HTTP, a spoilt CUDA context.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from common.comfy.child import Child
from common.comfy.oom import SIGKILLED, oom_kills
from common.comfy.scrub import scrub

log = logging.getLogger(__name__)

MAX_LOG_BYTES = 20 * 2**20  #: above this the log is set aside at the next start
BACKOFF_S = (1.0, 60.0)  #: first and longest wait after a death
TERM_S = 5.0  #: between asking to end and killing
STEADY_S = 600.0  #: an engine that stood so long starts the back-off anew
ADOPT_S = 30.0  #: an engine found running may be loading a model
PROBE_S = 2.0  #: one question whether it answers
LAST_LINES = 5


@dataclass(frozen=True)
class Death:
    """An end that nobody asked for."""

    at: float  #: time.monotonic()
    returncode: int | None  #: negative = the signal; None = not ours to know
    oom_killed: bool  #: by the kernel, for the host's memory


class EngineDidNotStart(Exception):
    """The command cannot be run, ended before it answered, or never answered."""

    def __init__(self, message: str, returncode: int | None = None) -> None:
        super().__init__(message)
        self.returncode = returncode


class LocalEngine:
    """
    One engine process on this machine.

    Args:
        command, cwd, env: what to run; `env` None = ours.
        url: where it will answer.
        log_file: its output; also names the file that remembers its pid.
        start_s: from the command to the first answer. Importing torch and custom nodes
            from a network volume takes minutes.
        die_with_parent: Linux: the kernel ends the engine when we are killed. False: it
            lives on with its run, and the next wrapper adopts it.
        backoff_s: first and longest wait after a death.
        term_s: between asking it to end and killing it.
        count_kills: how often the kernel has killed for memory so far.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        url: str,
        log_file: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        start_s: float = 600.0,
        die_with_parent: bool = True,
        backoff_s: tuple[float, float] = BACKOFF_S,
        term_s: float = TERM_S,
        count_kills: Callable[[], int] = oom_kills,
    ) -> None:
        self.url = url.rstrip("/")
        self.deaths: deque[Death] = deque(maxlen=100)
        self.trouble: str | None = None  #: why it is not up, when it is not
        self._command = list(command)
        self._cwd = cwd
        self._env = env
        self._log_file = log_file
        self._pid_file = log_file.with_suffix(".pid")
        self._start_s = start_s
        self._die_with_parent = die_with_parent
        self._backoff_s = backoff_s
        self._term_s = term_s
        self._count_kills = count_kills
        self._child: Child | None = None
        self._up = asyncio.Event()
        self._again = asyncio.Event()  # a restart is wanted: no death, no back-off
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether it runs and has answered."""
        return self._up.is_set()

    @property
    def pid(self) -> int | None:
        """Of the process, while it lives."""
        return self._child.pid if self._child and self._child.alive else None

    async def start(self) -> None:
        """
        Start it, wait until it answers, and watch over it from then on.

        Raises:
            EngineDidNotStart: with the last lines of its log.
        """
        child = await self._launch()
        self._task = asyncio.create_task(self._watch(child), name="local-engine")

    async def restart(self) -> None:
        """
        End it and start it anew, with whatever it ran lost.

        Raises:
            EngineDidNotStart: not up again in time; the watch goes on trying.
        """
        self._up.clear()
        self._again.set()
        if self._child is not None:
            await self._child.stop(self._term_s)
        try:
            async with asyncio.timeout(self._start_s):
                await self._up.wait()
        except TimeoutError:
            raise EngineDidNotStart(self.trouble or "no answer in time") from None

    async def aclose(self) -> None:
        """End it for good."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._end()

    async def _watch(self, child: Child | None) -> None:
        """Start it again whenever it ends."""
        first, longest = self._backoff_s
        delay = first
        while True:
            began, kills = time.monotonic(), self._count_kills()
            if child is not None:
                code = await child.wait()
                await self._end()  # what is left of its group
                if not self._again.is_set():
                    self._note_death(code, self._count_kills() > kills)
            if time.monotonic() - began > STEADY_S:
                delay = first
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._again.wait()
            delay = first if self._again.is_set() else min(2 * delay, longest)
            self._again.clear()
            child = await self._try_launch()

    def _note_death(self, code: int | None, kills_rose: bool) -> None:
        death = Death(time.monotonic(), code, kills_rose and code in SIGKILLED)
        self.deaths.append(death)
        self.trouble = (
            "the machine ran out of memory" if death.oom_killed else "it died"
        )
        log.error("the engine died: %s\n%s", death, self._last_lines())

    async def _try_launch(self) -> Child | None:
        try:
            return await self._launch()
        except EngineDidNotStart as error:
            if not self._again.is_set():
                death = Death(time.monotonic(), error.returncode, oom_killed=False)
                self.deaths.append(death)
            log.error("the engine did not start again: %s", error)  # noqa: TRY400
        except Exception:
            log.exception("the engine's watch stumbled")
        return None

    async def _launch(self) -> Child:
        """Return a process that answers, found or started."""
        try:
            if not await self._adopted():
                await self._spawn()
                await self._answers(self._start_s)
        except EngineDidNotStart as error:
            self.trouble = str(error)
            await self._end()
            raise
        except OSError as error:
            self.trouble = f"cannot run the engine: {error.strerror}"
            await self._end()
            raise EngineDidNotStart(self.trouble) from error
        except BaseException:
            await self._end()
            raise
        assert self._child is not None
        self.trouble = None
        self._up.set()
        log.info("the engine answers, pid %d", self._child.pid)
        return self._child

    async def _adopted(self) -> bool:
        """Find the engine that an earlier wrapper left running."""
        self._child = None
        with contextlib.suppress(OSError, ValueError):
            pid, created = self._pid_file.read_text().split()
            self._child = Child.adopt(int(pid), float(created))
        if self._child is None:
            return False
        if not self._die_with_parent:
            with contextlib.suppress(EngineDidNotStart):
                await self._answers(ADOPT_S)
                log.info("adopting the engine, pid %d", self._child.pid)
                return True
        await self._end()
        return False

    async def _spawn(self) -> None:
        if shutil.which(self._command[0], path=(self._env or {}).get("PATH")) is None:
            raise EngineDidNotStart(f"there is no {scrub(self._command[0])} to run")
        if await self._asked():
            raise EngineDidNotStart(f"something else answers at {self.url} already")
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        if self._log_file.exists() and self._log_file.stat().st_size > MAX_LOG_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".old.log"))
        with self._log_file.open("ab") as output:
            self._child = await Child.spawn(
                self._command,
                cwd=self._cwd,
                env=self._env,
                output=output,
                die_with_parent=self._die_with_parent,
            )
        self._pid_file.write_text(f"{self._child.pid} {self._child.created!r}")

    async def _answers(self, limit_s: float) -> None:
        """Wait for the first answer; ask often at first, the embedded one is quick."""
        assert self._child is not None
        deadline = time.monotonic() + limit_s
        pause = 0.05
        while not await self._asked():
            lines = self._last_lines(scrubbed=True)
            if not self._child.alive:
                code = await self._child.wait()
                raise EngineDidNotStart(
                    f"the engine ended with {code} before it answered: {lines}", code
                )
            if time.monotonic() > deadline:
                raise EngineDidNotStart(
                    f"the engine did not answer within {limit_s:g} s: {lines}"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def _asked(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=PROBE_S)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.url}/system_stats") as response,
            ):
                return response.status == 200
        return False

    async def _end(self) -> None:
        if self._child is not None:
            await self._child.stop(self._term_s)
            self._child = None
            with contextlib.suppress(OSError):  # a stale one is told by its date
                self._pid_file.unlink()
        self._up.clear()

    def _last_lines(self, *, scrubbed: bool = False) -> str:
        try:
            with self._log_file.open("rb") as file:
                file.seek(max(0, self._log_file.stat().st_size - 8192))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        lines = lines[-LAST_LINES:]
        return " | ".join(map(scrub, lines)) if scrubbed else "\n".join(lines)

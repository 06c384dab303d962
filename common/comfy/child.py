"""
A child process with its own group: started, waited for, ended for certain.

Also an *adopted* one: an engine that outlived its wrapper and is found again by pid
and start time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

# Runs in the child before the engine: the kernel then ends it with its parent (option
# 1 of prctl is PR_SET_PDEATHSIG), and when memory runs out kills it before us. By exec,
# since code between fork and exec (`preexec_fn`) may deadlock in a threaded process.
_SHIM = """
import ctypes, os, sys
try:
    open("/proc/self/oom_score_adj", "w").write("500")
except OSError:
    pass
if sys.argv[1] != "-":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Child:
    """One process, ours or adopted."""

    def __init__(
        self, pid: int, process: asyncio.subprocess.Process | None, created: float
    ) -> None:
        self.pid = pid
        self.created = (
            created  #: the kernel's start time, which tells reused pids apart
        )
        self._process = process

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        *,
        cwd: Path | None,
        env: Mapping[str, str] | None,
        output: IO[bytes],
        die_with_parent: bool,
    ) -> Child:
        """Start a command in a group of its own; OSError when it cannot be run."""
        if sys.platform == "linux":
            parent = str(os.getpid()) if die_with_parent else "-"
            command = [sys.executable, "-I", "-S", "-c", _SHIM, parent, *command]
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=os.name == "posix",
            creationflags=flags,
        )
        return cls(process.pid, process, _created(process.pid) or 0.0)

    @classmethod
    def adopt(cls, pid: int, created: float) -> Child | None:
        """Take over a process that runs already, if it still is the same."""
        return cls(pid, None, created) if _created(pid) == created else None

    @property
    def adopted(self) -> bool:
        """Whether another process started it."""
        return self._process is None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        if self._process is not None:
            return self._process.returncode is None
        return _created(self.pid) == self.created

    async def wait(self) -> int | None:
        """Return the exit code, negative for a signal; None when it was adopted."""
        if self._process is not None:
            return await self._process.wait()
        while self.alive:  # noqa: ASYNC110  there is no event for another's child
            await asyncio.sleep(0.2)
        return None

    async def stop(self, term_s: float) -> None:
        """Ask the whole group to end, and kill what is left after so long."""
        if self.alive:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(term_s):
                    await self.wait()
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        await self.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self.pid, number)
            elif self.alive:
                # Windows: no groups to signal, but the tree can be ended.
                subprocess.run(
                    ["taskkill", "/T", "/F", "/PID", str(self.pid)],
                    capture_output=True,
                    check=False,
                )


def _created(pid: int) -> float | None:
    """Return when a living process began; a zombie does not live."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time()
    except psutil.Error:
        return None

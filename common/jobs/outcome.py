"""How an attempt at a job can end. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.events import EngineFile
from common.job import JobError, Output


@dataclass(frozen=True)
class Done:
    """ComfyUI finished; its files are to be collected."""

    saved: tuple[EngineFile, ...]  #: by the output node
    nodes: dict[str, float]  #: seconds by node title


@dataclass(frozen=True)
class Published:
    """The outputs are whole, checked and in place."""

    outputs: tuple[Output, ...]
    nodes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stopped:
    """It was interrupted, or taken from ComfyUI's queue."""


@dataclass(frozen=True)
class Postponed:
    """It never reached ComfyUI; the attempt does not count."""


@dataclass(frozen=True)
class Lost:
    """ComfyUI forgot it, most likely by dying; another attempt may succeed."""

    error: JobError  #: what to say when no attempt is left
    restart: bool = False  #: the engine must be restarted first


@dataclass(frozen=True)
class Spoiled:
    """What came out is no good; one more attempt may be better, a third will not."""

    error: JobError


@dataclass(frozen=True)
class Broken:
    """It failed, and would again."""

    error: JobError
    restart: bool = False


Outcome = Done | Published | Stopped | Postponed | Lost | Spoiled | Broken


def lost_in_restart() -> JobError:
    """Return the error of an attempt that a restart took."""
    return JobError(
        "engine_lost",
        "the service or ComfyUI was restarted while it had this job",
        "send the job again; the engine's log says why it ended",
        retryable=True,
    )


def host_memory() -> JobError:
    """Return the error of attempts that ended with the engine out of host memory."""
    return JobError(
        "host_out_of_memory",
        "the kernel ended ComfyUI because the machine's memory ran out",
        "give the container more RAM, or use fp8 weights or a smaller size",
    )


def internal(error: Exception) -> JobError:
    """Return the error of a job that met a fault of ours."""
    return JobError(
        "internal",
        f"the service failed ({type(error).__name__})",
        "the log has the details under this job's id",
        retryable=True,
    )

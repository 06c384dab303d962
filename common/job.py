"""
A job is the fold of its changes: `job = job.after(change)`.

Pure: no clock, no I/O. One table says which moves are legal; terminal states are final
and `version` grows by one with each change.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal


class Status(StrEnum):
    """The life of a job."""

    QUEUED = "queued"  #: waits for a slot
    RUNNING = "running"  #: ComfyUI has it
    CANCELING = "canceling"  #: asked to stop; the GPU is not free yet
    SUCCEEDED = "succeeded"  #: outputs are whole and checked
    FAILED = "failed"  #: `error` says why and what to do
    CANCELED = "canceled"  #: stopped on request
    EXPIRED = "expired"  #: waited longer than jobs are kept

    @property
    def terminal(self) -> bool:
        """Tell whether the job is over."""
        return self in TERMINAL


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.EXPIRED})

MOVES: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset(
        {Status.RUNNING, Status.FAILED, Status.CANCELED, Status.EXPIRED}
    ),
    # Back to queued: the attempt was lost with its engine, and another is allowed.
    # A cancel that comes as the last frame is saved loses: the video is there.
    Status.RUNNING: frozenset(
        {
            Status.RUNNING,
            Status.QUEUED,
            Status.CANCELING,
            Status.SUCCEEDED,
            Status.FAILED,
            Status.CANCELED,
        }
    ),
    Status.CANCELING: frozenset({Status.CANCELED, Status.SUCCEEDED, Status.FAILED}),
    **{status: frozenset() for status in TERMINAL},
}


class IllegalMove(Exception):
    """A change came that the job's status does not allow; the job stays as it is."""


@dataclass(frozen=True)
class JobError:
    """Why a job failed, for programs (`code`) and people (`message`, `hint`)."""

    code: str
    message: str
    hint: str | None = None
    node: str | None = None  #: title of the node
    retryable: bool = False


@dataclass(frozen=True)
class Output:
    """A published file: whole, checked, and never changed again."""

    name: str
    kind: Literal["video", "image"]
    content_type: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    frames: int | None = None
    fps: float | None = None
    duration_s: float | None = None
    audio: bool = False  #: it is heard, too
    poster: str | None = None  #: name of the still that stands for it


@dataclass(frozen=True)
class Expected:
    """What the file must turn out to be; None where the request leaves it open."""

    kind: Literal["video", "image"] = "video"
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    audio: bool = False  #: a sound of about the video's length must be there
    count: int = 1  #: files
    parts: int = 1  #: files that each of them is saved in, to be joined
    sounds: tuple[str, ...] = ()  #: fields whose recordings go under joined parts


@dataclass(frozen=True)
class Progress:
    """How far a run is, over the whole graph."""

    value: float = 0.0  #: 0…1, never goes back within an attempt
    stage: str = "queued"
    step: int | None = None  #: of the sampler that runs, from 1
    steps: int | None = None
    node: str | None = None  #: title of the node that runs
    eta_s: float | None = None
    done_bytes: int | None = None  #: of the weights that are being fetched
    total_bytes: int | None = None


@dataclass(frozen=True)
class Started:
    """A slot gave the job to ComfyUI."""

    at: datetime
    device: str | None = None  #: the card that runs it, as the engine names it


@dataclass(frozen=True)
class Advanced:
    """The run went on."""

    progress: Progress


@dataclass(frozen=True)
class Moved:
    """Jobs before it left the queue."""


@dataclass(frozen=True)
class Held:
    """It waits, and not for other jobs: its weights are on their way."""

    progress: Progress


@dataclass(frozen=True)
class Requeued:
    """The attempt was lost through no fault of the job's; the next one will come."""

    mended: str | None = None  #: the code of what its weights did; they are seen to


@dataclass(frozen=True)
class Deferred:
    """The run was given back before it began in earnest; the attempt does not count."""


@dataclass(frozen=True)
class CancelAsked:
    """The caller wants it stopped."""

    at: datetime


@dataclass(frozen=True)
class Succeeded:
    """The outputs are published."""

    outputs: tuple[Output, ...]
    nodes: dict[str, float]  #: seconds by node title
    at: datetime


@dataclass(frozen=True)
class Failed:
    """It ended without the outputs."""

    error: JobError
    at: datetime


@dataclass(frozen=True)
class Canceled:
    """It stopped as asked."""

    at: datetime


@dataclass(frozen=True)
class Expired:
    """It waited too long."""

    at: datetime


Change = (
    Started
    | Advanced
    | Moved
    | Held
    | Requeued
    | Deferred
    | CancelAsked
    | Succeeded
    | Failed
    | Canceled
    | Expired
)


@dataclass(frozen=True)
class Job:
    """One request on its way to a video. Immutable; each change makes the next one."""

    id: str
    service: str
    engine: str  #: "comfyui", "embedded" or "nunchaku"
    request: dict[str, Any]
    created_at: datetime
    priority: int = 3  #: 1 (first) to 5
    status: Status = Status.QUEUED
    version: int = 1
    attempt: int = 1
    mended: str | None = None  #: why its weights were seen to, which is done once
    progress: Progress = field(default_factory=Progress)
    started_at: datetime | None = None
    device: str | None = None  #: what the last attempt ran on
    completed_at: datetime | None = None
    outputs: tuple[Output, ...] = ()
    error: JobError | None = None
    nodes: dict[str, float] = field(default_factory=dict)

    @property
    def prompt_id(self) -> str:
        """ComfyUI's id of this attempt: the job's own, then one derived from it."""
        if self.attempt == 1:
            return self.id
        return str(uuid.uuid5(uuid.UUID(self.id), str(self.attempt)))

    def after(self, change: Change) -> Job:
        """
        Return the job as it stands after `change`.

        Raises:
            IllegalMove: the table does not allow it, such as any change after the end.
        """
        match change:
            case Started(at=at, device=device):
                progress = Progress(stage="starting")
                return self._to(
                    Status.RUNNING, started_at=at, device=device, progress=progress
                )
            case Advanced(progress=progress):
                if self.status is Status.CANCELING:
                    return self._next(progress=progress)
                return self._to(Status.RUNNING, progress=progress)
            case Moved():
                return self._next()
            case Held(progress=progress):
                if self.status is not Status.QUEUED:
                    raise IllegalMove(f"a {self.status} job does not wait")
                return self._next(progress=progress)
            case Requeued(mended=mended):
                return self._to(
                    Status.QUEUED,
                    attempt=self.attempt + 1,
                    mended=self.mended or mended,
                    started_at=None,
                    progress=Progress(),
                )
            case Deferred():
                return self._to(Status.QUEUED, started_at=None, progress=Progress())
            case CancelAsked(at=at):
                if self.status is Status.QUEUED:
                    return self._to(Status.CANCELED, completed_at=at)
                return self._to(Status.CANCELING)
            case Succeeded(outputs=outputs, nodes=nodes, at=at):
                return self._to(
                    Status.SUCCEEDED,
                    outputs=outputs,
                    nodes=nodes,
                    progress=Progress(value=1.0, stage="done"),
                    completed_at=at,
                )
            case Failed(error=error, at=at):
                return self._to(Status.FAILED, error=error, completed_at=at)
            case Canceled(at=at):
                return self._to(Status.CANCELED, completed_at=at)
            case Expired(at=at):
                return self._to(Status.EXPIRED, completed_at=at)

    def _to(self, status: Status, **changes: Any) -> Job:
        if status not in MOVES[self.status]:
            raise IllegalMove(f"a {self.status} job cannot become {status}")
        return self._next(status=status, **changes)

    def _next(self, **changes: Any) -> Job:
        return replace(self, version=self.version + 1, **changes)

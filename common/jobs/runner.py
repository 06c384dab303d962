"""
One attempt at one job: hand it to ComfyUI, follow it, and say how it ended.

The socket is for progress only. Whatever it says or fails to say, the end is read from
ComfyUI's history, and every silence leads to a look at history and queue. The runner
knows nothing of queues, slots or retries: it returns an outcome.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from common.comfy import (
    Absent,
    Comfy,
    EngineInfo,
    EngineUnreachable,
    Finished,
    History,
    Queued,
    Running,
    SocketLost,
    WorkflowRejected,
    failure,
)
from common.events import Ended, Event, Executed, Preview, Succeeded
from common.inputs.media import KINDS
from common.job import Job, JobError, Started, Status
from common.jobs.estimator import device_name
from common.jobs.files import Files
from common.jobs.ledger import Ledger, now
from common.jobs.limits import Limits
from common.jobs.outcome import (
    Broken,
    Done,
    Lost,
    Outcome,
    Postponed,
    Stopped,
    lost_in_restart,
)
from common.jobs.overdue import overdue
from common.jobs.run import Run
from common.progress import Meter
from common.request import Request

log = logging.getLogger(__name__)

TELL_S = 0.05  # people see no more than twenty changes a second


@dataclass(frozen=True)
class Ran:
    """The engine is free again; `Runner.conclude` reads how the run ended."""

    run: Run

    @property
    def told(self) -> Done:
        """What the events told of the end."""
        return self.run.done(self.run.saved)


class Runner:
    """Runs attempts for one service."""

    def __init__(
        self,
        ledger: Ledger,
        files: Files,
        limits: Limits,
        request: type[Request],
        output_title: str,
        oom_hint: Callable[[Job, EngineInfo | None], str | None],
    ) -> None:
        self._ledger = ledger
        self._files = files
        self.limits = limits
        self._output_title = output_title
        self._oom_hint = oom_hint
        self._fields = {(p.title, p.input): name for name, p in request.patches()}
        self._runs: dict[str, Run] = {}

    async def run(
        self, job: Job, engine: Comfy, *, adopt: bool = False
    ) -> Outcome | Ran:
        """
        Follow one attempt to its end; with `adopt`, one that ComfyUI has already.

        Never raises for what ComfyUI does; `job` must be live.
        """
        workflow, _ = await self._ledger.work_of(job.id)
        with engine.follow(job.prompt_id) as follower:
            run = Run(
                job,
                engine,
                workflow,
                Meter.of(workflow),
                follower,
                workflow.repeats(self._output_title),
            )
            self._runs[job.id] = run
            live = self._ledger.live(job.id)
            if live is not None and live.status is Status.CANCELING:
                run.cancel_asked = time.monotonic()  # before, or while it was found
            try:
                outcome = await (self._look(run) if adopt else self._submit(run))
                return outcome or await self._follow(run)
            except asyncio.CancelledError:
                if run.started is not None:  # it may be waiting for the store
                    run.started.cancel()
                raise
            finally:
                del self._runs[job.id]
                if run.started is not None:
                    await asyncio.wait({run.started})

    async def conclude(self, ran: Ran) -> Outcome:
        """Return how a run ended, from ComfyUI's history."""
        while True:
            if outcome := await self._look(ran.run):
                return outcome
            if time.monotonic() - ran.run.heard > self.limits.load_s:
                return Lost(lost_in_restart())
            await asyncio.sleep(TELL_S)

    async def cancel(self, job_id: str) -> bool:
        """Ask ComfyUI to stop a job; return whether it is being run here."""
        run = self._runs.get(job_id)
        if run is None:
            return False
        run.cancel_asked = run.cancel_asked or time.monotonic()
        await run.send_cancel()
        return True

    async def _submit(self, run: Run) -> Outcome | None:
        try:
            # The commit travels beside the request; a crash between the two is found
            # at the next start by asking ComfyUI for this prompt id.
            run.started = asyncio.create_task(self._start(run))
            graph = await self._hand_over(run)
            await run.engine.submit(run.job.prompt_id, graph)
        except WorkflowRejected as error:
            return Broken(self._rejected(error, run))
        except EngineUnreachable as error:
            if error.maybe_sent:
                run.refusal = error
                return None  # following will tell whether it arrived
            return Postponed()
        run.heard = time.monotonic()
        return None

    async def _start(self, run: Run) -> None:
        started = Started(now(), device_name(run.engine.info))
        if await self._ledger.insist(run.job.id, started) is None:
            run.cancel_asked = time.monotonic()  # canceled in this very moment

    async def _hand_over(self, run: Run) -> dict[str, object]:
        """Upload the inputs and return the graph with their names in place."""
        _, media = await self._ledger.work_of(run.job.id)
        for file in media:
            name = await run.engine.upload(
                self._files.input(run.job.id, file.upload_id),
                f"{file.upload_id}{KINDS[file.kind].suffix}",
                f"wan/{run.job.prompt_id}",
            )
            run.workflow.patch(file.title, file.input, name)
        # A prefix of our own: a cached graph still saves a fresh file under it.
        prefix = f"wan/{run.job.prompt_id}/output"
        for node in run.output_nodes:
            run.workflow.nodes[node]["inputs"]["filename_prefix"] = prefix
        return dict(run.workflow.nodes)

    def _rejected(self, error: WorkflowRejected, run: Run) -> JobError:
        """Say ComfyUI's refusal of the graph with the request's own field."""
        first = error.errors[0]
        title = run.meter.titles.get(first.node_id or "")
        field = self._fields.get((title or "", first.input or ""))
        message = f"{field}: {error}" if field else str(error)
        return JobError(error.code, message, error.hint, node=title)

    async def _follow(self, run: Run) -> Outcome | Ran:
        while True:
            outcome: Outcome | None = None
            event = await run.follower.next(
                TELL_S if run.untold else self.limits.poll_s
            )
            match event:
                case None if run.untold:
                    self._tell(run)
                case None | SocketLost():
                    run.blind = run.blind or event is not None
                    outcome = await self._look(run)
                case Ended():
                    self._note(run, event)
                    if run.succeeded:
                        return Ran(run)
                    outcome = await self._look(run)
                case Succeeded():
                    run.succeeded = True
                case Executed(node=node, files=files) if node in run.output_nodes:
                    run.saved[node] = files
                    self._note(run, event)
                case Preview(data=data, content_type=content_type):
                    run.heard = time.monotonic()
                    self._ledger.bus.show(run.job.id, data, content_type)
                case _:
                    self._note(run, event)
            outcome = outcome or await overdue(run, self.limits)
            if outcome is not None:
                return outcome
            if run.cancel_asked and time.monotonic() - run.cancel_sent > 1:
                await run.send_cancel()

    def _note(self, run: Run, event: Event) -> None:
        """Move the meter, and tell the watchers unless they were just told."""
        run.heard = time.monotonic()
        run.waiting_since, run.blind, run.refusal = None, False, None
        run.meter = run.meter.after(event, run.heard)
        run.untold = True
        if run.heard - run.told > TELL_S:
            self._tell(run)

    def _tell(self, run: Run) -> None:
        """Tell the watchers; nodes that take no time come in bursts, told as one."""
        run.told, run.untold = time.monotonic(), False
        self._ledger.advance(run.job.id, run.meter.progress(run.told))

    async def _look(self, run: Run) -> Outcome | None:
        """Ask history and queue; None while it is still going on."""
        try:
            state = await run.engine.state(run.job.prompt_id)
        except EngineUnreachable:
            return await self._await_engine(run)
        if isinstance(state, Absent):
            return self._gone(run)
        run.refusal = None  # it arrived after all
        match state:
            case Finished(history=history):
                return self._verdict(run, history)
            case Running():
                run.waiting_since = run.missed_since = None
            case Queued():
                return await self._zombie(run)
        return None

    def _verdict(self, run: Run, history: History) -> Outcome:
        match history.status:
            case "success":
                return run.done(history.files_by_node)
            case "interrupted":
                return Stopped()
        assert history.error is not None
        found = failure(history.error, hide=_texts(run.job))
        hint: str | None = found.hint
        if found.code == "out_of_memory":
            hint = self._oom_hint(run.job, run.engine.info) or hint
        error = JobError(
            found.code,
            found.message,
            hint,
            node=run.meter.titles.get(history.error.node_id),
            retryable=found.retryable,
        )
        if found.retryable:
            return Lost(error, restart=found.sticky)
        return Broken(error, restart=found.sticky)

    def _gone(self, run: Run) -> Outcome | None:
        """Believe it when it lasts: history may be filed a moment late."""
        if run.cancel_asked is not None:
            return Stopped()
        run.missed_since = run.missed_since or time.monotonic()
        if time.monotonic() - run.missed_since < self.limits.absent_s:
            return None
        return Lost(_not_taken(run.refusal) if run.refusal else lost_in_restart())

    async def _await_engine(self, run: Run) -> Outcome | None:
        """
        Wait for an engine that went away; it comes back empty, or not at all.

        A little at a time, so that a cancel is heard meanwhile.
        """
        try:
            await run.engine.wait_until_ready(max(1.0, self.limits.poll_s))
        except EngineUnreachable:
            at = time.monotonic()
            if run.cancel_asked and at - run.cancel_asked > self.limits.cancel_s / 3:
                return Stopped()
            if at - run.heard < self.limits.load_s:
                return None
            return Lost(
                JobError(
                    "engine_unreachable",
                    f"ComfyUI has not answered for {self.limits.load_s:.0f} s",
                    "check that ComfyUI runs and that COMFYUI_URL is right",
                    retryable=True,
                )
            )
        return None

    async def _zombie(self, run: Run) -> Outcome | None:
        """Tell a queue that moves from one whose worker thread has died."""
        with suppress(EngineUnreachable):
            running, _ = await run.engine.queue_sizes()
            if running:  # somebody else's: our time has not begun
                run.waiting_since = None
                run.began = run.heard = time.monotonic()
                return None
        since = run.waiting_since or time.monotonic()
        run.waiting_since = since
        if time.monotonic() - since < self.limits.zombie_s:
            return None
        return Lost(
            JobError(
                "engine_lost",
                "ComfyUI takes jobs but runs none: its worker has died",
                "restart ComfyUI",
                retryable=True,
            ),
            restart=True,
        )


def _not_taken(refusal: EngineUnreachable) -> JobError:
    return JobError(
        "engine_lost",
        f"ComfyUI did not take the job: {refusal}",
        "look at the engine's log, and whether its input folder can be written to",
        retryable=True,
    )


def _texts(job: Job) -> tuple[str, ...]:
    """Return what a message must not repeat: whatever the caller wrote."""
    values = (job.request.get("prompt"), job.request.get("negative_prompt"))
    return tuple(value for value in values if isinstance(value, str) and value)

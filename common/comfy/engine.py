"""One ComfyUI, or the embedded engine, which speaks as it does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp

from common.comfy import state
from common.comfy.feed import Feed
from common.comfy.follower import Follower
from common.comfy.http import EngineUnreachable, Http, OutputTooLarge, shown
from common.comfy.refusal import NodeError, WorkflowRejected, rejection
from common.events import EngineFile

CHUNK_BYTES = 2**20
CHOICES_S = 10.0  #: how long a list of choices is remembered


@dataclass(frozen=True)
class Device:
    """A GPU as ComfyUI sees it, or its "cpu"."""

    name: str
    type: str
    vram_total_bytes: int
    vram_free_bytes: int


@dataclass(frozen=True)
class EngineInfo:
    """Who answers."""

    version: str
    embedded: bool
    devices: tuple[Device, ...] = ()


class Comfy:
    """
    A client of one engine: HTTP, and the standing socket.

    Args:
        url: such as "http://127.0.0.1:8188".
        connect_s: to connect.
        answer_s: for the first byte of an answer, and between any two. ComfyUI is
            slow while it loads tens of GB, since loading may hold its interpreter.
        silence_s: a socket silent for so long, though pinged, counts as lost.
        client_file: where to remember the client id over our own restarts.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_s: float = 5.0,
        answer_s: float = 30.0,
        silence_s: float = 20.0,
        client_file: Path | None = None,
    ) -> None:
        self.url = shown(url.rstrip("/"))  #: for people
        self.info: EngineInfo | None = None  #: as of the last (re)connect
        self._connect_s = connect_s
        self._http = Http(url, connect_s=connect_s, answer_s=answer_s)
        self._feed = Feed(
            self._http, self.stats, silence_s=silence_s, client_file=client_file
        )
        self._choices: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}

    async def start(self) -> None:
        """Open the session and begin to connect; `wait_until_ready` waits for it."""
        await self._http.open()
        self._feed.start()

    async def aclose(self) -> None:
        """Close the socket and the session."""
        await self._feed.close()
        await self._http.close()

    @property
    def socket_alive(self) -> bool:
        """Whether events arrive."""
        return self._feed.alive.is_set()

    @property
    def reachable(self) -> bool:
        """Whether the engine answered when last asked, or holds the socket."""
        return self.socket_alive or self._http.reachable

    async def wait_until_ready(self, timeout_s: float) -> None:
        """Return once the socket stands; EngineUnreachable when time is up."""
        self._feed.hurry()
        try:
            async with asyncio.timeout(timeout_s):
                await self._feed.alive.wait()
        except TimeoutError:
            raise EngineUnreachable(
                f"no ComfyUI answered within {timeout_s:g} s", maybe_sent=False
            ) from None

    async def reconnect(self) -> None:
        """
        Replace the socket, under a fresh client id.

        For when a prompt runs by `state` though its follower hears nothing: an open
        socket may be deaf. That prompt's own events still go to the old id.
        """
        await self._feed.reconnect()
        with contextlib.suppress(EngineUnreachable):
            await self.wait_until_ready(self._connect_s)

    def follow(self, prompt_id: str) -> AbstractContextManager[Follower]:
        """Listen to a prompt. Enter before `submit`, so that no event is missed."""
        return self._feed.follow(prompt_id)

    async def submit(self, prompt_id: str, graph: dict[str, object]) -> int:
        """
        Queue a graph under our id and return its number in the queue.

        Numbers start again at 0 when the engine restarts. A used id would be accepted
        again and run twice: ask `state` before a second try.

        Raises:
            WorkflowRejected: refused, or accepted in part, which is then withdrawn.
            EngineUnreachable: see its `maybe_sent`.
        """
        answer = await self._http.try_post(
            "/prompt",
            {
                "prompt": graph,
                "client_id": self._feed.client_id,
                "prompt_id": prompt_id,
            },
        )
        body = answer.json if isinstance(answer.json, dict) else {}
        if answer.status >= 500 or (answer.status == 200 and not body):
            raise EngineUnreachable(
                f"POST /prompt: the engine answered {answer.status}", maybe_sent=True
            )
        if answer.status != 200:
            raise rejection(body)
        taken_as = body.get("prompt_id")
        if body.get("node_errors"):
            # Some outputs are valid: ComfyUI drops the others and runs the rest.
            await self._withdraw(taken_as)
            raise rejection(body)
        if taken_as != prompt_id:
            await self._withdraw(taken_as)
            raise WorkflowRejected([_TOO_OLD])
        number = body.get("number")
        return int(number) if isinstance(number, int | float) else 0

    async def _withdraw(self, prompt_id: object) -> None:
        with contextlib.suppress(EngineUnreachable):
            await self.cancel(str(prompt_id))

    async def state(self, prompt_id: str) -> state.State:
        """
        Say where a prompt is.

        A prompt moves from pending to running to history and never back. So a second
        look at history catches one that left the queue between the first two looks,
        and Absent means absent.
        """
        path = f"/history/{quote(prompt_id, safe='')}"
        return (
            state.in_history(await self._http.get(path), prompt_id)
            or state.in_queue(await self._http.get("/queue"), prompt_id)
            or state.in_history(await self._http.get(path), prompt_id)
            or state.Absent()
        )

    async def cancel(self, prompt_id: str) -> None:
        """
        Take a prompt out of the queue, or interrupt it if it runs.

        Deleting has no effect on a running prompt and interrupting none on a queued
        one; a deleted prompt leaves no event and no history. An interrupt bites at
        the next sampler step or node border, and is lost in the instant between
        "running" and the first node: repeat while `state` still says Running.
        """
        await self._http.post("/queue", {"delete": [prompt_id]})
        where = state.in_queue(await self._http.get("/queue"), prompt_id)
        if isinstance(where, state.Running):
            await self._http.post("/interrupt", {"prompt_id": prompt_id})

    async def upload(self, path: Path, name: str, subfolder: str) -> str:
        """
        Store a file among the engine's inputs and return what LoadImage takes.

        The engine may choose another name: other bytes under a used name become
        "x (1).png".
        """
        form = aiohttp.FormData({"type": "input", "subfolder": subfolder})
        content = await asyncio.to_thread(path.open, "rb")
        with content:
            form.add_field("image", content, filename=name)
            body = await self._http.post("/upload/image", data=form)
        stored = body if isinstance(body, dict) else {}
        return "/".join(
            filter(None, (stored.get("subfolder", ""), stored.get("name", name)))
        )

    async def download(self, file: EngineFile, dest: Path, *, max_bytes: int) -> None:
        """
        Copy an output to `dest`; on trouble nothing is left there.

        Raises:
            OutputMissing, OutputTooLarge, EngineUnreachable; OSError of the local disk.
        """
        params = {
            "filename": file.filename,
            "subfolder": file.subfolder,
            "type": file.type,
        }
        try:
            async with self._http.stream("/view", params) as response:
                await _copy(response, dest, max_bytes)
        except BaseException:
            # At once: a canceled task must not wait for a thread.
            dest.unlink(missing_ok=True)  # noqa: ASYNC240
            raise

    async def choices(self, node_class: str, input_name: str) -> tuple[str, ...]:
        """Return what a node's drop-down offers; () when there is no such input."""
        key = (node_class, input_name)
        if key in self._choices and time.monotonic() < self._choices[key][0]:
            return self._choices[key][1]
        body = await self._http.get(f"/object_info/{quote(node_class, safe='')}")
        found = _choices(body, node_class, input_name)
        self._choices[key] = (time.monotonic() + CHOICES_S, found)
        return found

    def forget_choices(self) -> None:
        """Ask anew for the choices: files have come."""
        self._choices.clear()

    async def stats(self) -> dict[str, object]:
        """Return `/system_stats` as it is, and renew `info`."""
        body = await self._http.get("/system_stats")
        stats = body if isinstance(body, dict) else {}
        self.info = _info(stats)
        return stats

    async def free(self) -> None:
        """Ask the engine to unload its models and free its memory."""
        await self._http.post("/free", {"unload_models": True, "free_memory": True})

    async def queue_sizes(self) -> tuple[int, int]:
        """
        Return how many prompts run and wait.

        Some waiting and none running, for seconds: the engine's worker is dead while
        its HTTP still answers.
        """
        return state.sizes(await self._http.get("/queue"))


_TOO_OLD = NodeError(
    None, None, None, "engine_too_old", "this ComfyUI is too old: it ignores prompt ids"
)


async def _copy(response: aiohttp.ClientResponse, dest: Path, max_bytes: int) -> None:
    size = 0
    # Opened here and not in a thread, which would leave it open after a cancel.
    with dest.open("wb") as content:
        if (response.content_length or 0) <= max_bytes:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                size += await asyncio.to_thread(content.write, chunk)
                if size > max_bytes:
                    break
            else:
                return
    raise OutputTooLarge(f"the output has over {max_bytes} bytes")


def _choices(body: object, node_class: str, input_name: str) -> tuple[str, ...]:
    match body:
        case {**nodes} if isinstance(node := nodes.get(node_class), dict):
            inputs = node.get("input")
        case _:
            return ()
    for group in inputs.values() if isinstance(inputs, dict) else ():
        match group.get(input_name) if isinstance(group, dict) else None:
            case [list(options), *_]:  # [["a", "b"], {}]
                pass
            case [str(), {"options": list(options)}]:  # ["COMBO", {"options": […]}]
                pass
            case _:
                continue
        keys = (o.get("key") if isinstance(o, dict) else o for o in options)
        return tuple(key for key in keys if isinstance(key, str))
    return ()


def _info(stats: dict[str, object]) -> EngineInfo:
    system = stats.get("system")
    system = system if isinstance(system, dict) else {}
    devices = stats.get("devices")
    return EngineInfo(
        str(system.get("comfyui_version", "unknown"))[:40],
        stats.get("embedded") is True or system.get("embedded") is True,
        tuple(
            Device(
                str(device.get("name", "")),
                str(device.get("type", "")),
                _bytes(device.get("vram_total")),
                _bytes(device.get("vram_free")),
            )
            for device in (devices if isinstance(devices, list) else [])
            if isinstance(device, dict)
        ),
    )


def _bytes(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0

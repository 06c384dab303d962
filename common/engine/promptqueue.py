"""
What waits, what runs and what was: ComfyUI's queue and history, in memory.

One worker thread takes from it; the server reads and changes it from the event loop.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from common.engine.validate import Graph

#: Entries that history keeps, the oldest leave first. Source: ComfyUI.
HISTORY_LIMIT = 10_000


@dataclass
class Item:
    """One accepted prompt."""

    number: float  #: the smaller runs first
    prompt_id: str
    graph: Graph
    extra_data: dict[str, Any]
    outputs: list[str]  #: the output nodes to run
    received: int = 0  #: 0, 1, 2, … in the order of acceptance
    created_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    state: str = "queued"  #: then running and success, error, interrupted or deleted
    stop: threading.Event = field(default_factory=threading.Event)  #: interrupt it
    forgotten: bool = False  #: end it without a word

    @property
    def client_id(self) -> str | None:
        """Return who is told about this prompt, if anybody."""
        client = self.extra_data.get("client_id")
        return None if client is None else str(client)

    def as_list(self) -> list[Any]:
        """Return the shape of /queue and /history."""
        head: list[Any] = [self.number, self.prompt_id, self.graph]
        return [*head, self.extra_data, self.outputs]


@dataclass(frozen=True)
class Entry:
    """One prompt in the history."""

    item: Item
    outputs: dict[str, Any]
    meta: dict[str, Any]
    messages: list[tuple[str, dict[str, Any]]]
    visible_at: float = 0.0  #: time.monotonic(), for a test that wants history late

    def as_json(self) -> dict[str, Any]:
        """Return the shape of /history."""
        done = self.item.state == "success"
        return {
            "prompt": self.item.as_list(),
            "outputs": self.outputs,
            "status": {
                "status_str": "success" if done else "error",
                "completed": done,
                "messages": self.messages,
            },
            "meta": self.meta,
        }


class PromptQueue:
    """The queue and the history. `changed` is called with the lock released."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Condition()
        self._heap: list[tuple[float, int, Item]] = []
        self._history: dict[str, Entry] = {}
        self._closed = False
        self._held = False
        self.running: Item | None = None
        self.log: list[Item] = []  #: all that was ever accepted, in that order

    def remaining(self) -> int:
        """Return how many prompts wait or run."""
        with self._lock:
            return len(self._heap) + (self.running is not None)

    def put(self, item: Item) -> None:
        """Accept a prompt."""
        with self._lock:
            item.received = len(self.log)
            self.log.append(item)
            heapq.heappush(self._heap, (item.number, item.received, item))
            self._lock.notify_all()
        self._changed()

    def take(self) -> Item | None:
        """Wait for a prompt and call it running; None = the queue was closed."""
        with self._lock:
            while not self._closed and (self._held or not self._heap):
                self._lock.wait()
            if self._closed:
                return None
            self.running = heapq.heappop(self._heap)[2]
            self.running.state = "running"
        self._changed()
        return self.running

    def done(self, entry: Entry | None) -> None:
        """Put the running prompt into the history."""
        with self._lock:
            self.running = None
            if entry is not None:
                self._history.pop(entry.item.prompt_id, None)
                self._history[entry.item.prompt_id] = entry
                while len(self._history) > HISTORY_LIMIT:
                    del self._history[next(iter(self._history))]
        self._changed()

    def interrupt(self, prompt_id: str | None) -> None:
        """Stop the running prompt; with an id, only if it is that one."""
        with self._lock:
            if self.running and prompt_id in (None, self.running.prompt_id):
                self.running.stop.set()

    def delete(self, prompt_ids: Iterable[str] | None) -> None:
        """Drop waiting prompts: these, or with None all. A running one goes on."""
        with self._lock:
            unwanted = set(prompt_ids) if prompt_ids is not None else None
            kept = []
            for entry in self._heap:
                if unwanted is not None and entry[2].prompt_id not in unwanted:
                    kept.append(entry)
                else:
                    entry[2].state = "deleted"
            changed = len(kept) < len(self._heap)
            self._heap = kept
            heapq.heapify(self._heap)
        if changed:
            self._changed()

    def snapshot(self) -> tuple[list[Item], list[Item]]:
        """Return what runs and what waits, next one first."""
        with self._lock:
            running = [self.running] if self.running else []
            return running, [entry[2] for entry in sorted(self._heap)]

    def history(self) -> dict[str, Entry]:
        """Return the visible history, oldest first."""
        now = time.monotonic()
        with self._lock:
            return {i: e for i, e in self._history.items() if e.visible_at <= now}

    def forget_history(self, prompt_ids: Iterable[str] | None) -> None:
        """Drop entries of the history: these, or with None all."""
        with self._lock:
            for prompt_id in list(self._history) if prompt_ids is None else prompt_ids:
                self._history.pop(prompt_id, None)

    def hold(self, held: bool) -> None:
        """Let nothing start until told otherwise."""
        with self._lock:
            self._held = held
            self._lock.notify_all()

    def forget_all(self) -> None:
        """Lose everything without a word, as a restart of ComfyUI does."""
        with self._lock:
            for _, _, item in self._heap:
                item.state = "deleted"
            self._heap.clear()
            self._history.clear()
            if self.running:
                self.running.forgotten = True
                self.running.stop.set()

    def close(self) -> None:
        """Stop the running prompt and start no other."""
        with self._lock:
            self._closed = True
            if self.running:
                self.running.forgotten = True
                self.running.stop.set()
            self._lock.notify_all()

"""
Where a prompt is, as ComfyUI's `/history` and `/queue` tell it.

Pure. History and queue are the truth about a run, but they live in ComfyUI's memory:
after its restart both are empty, and every prompt is Absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from common.events import EngineFile, Failed, failed, files


@dataclass(frozen=True)
class Absent:
    """Never arrived, deleted from the queue, or forgotten by a restart."""


@dataclass(frozen=True)
class Queued:
    """Waits its turn."""

    position: int  #: 0 = the next to run


@dataclass(frozen=True)
class Running:
    """Runs now."""


@dataclass(frozen=True)
class History:
    """How a run ended."""

    status: Literal["success", "error", "interrupted"]
    #: Also of a failed run: what its finished or cached nodes gave.
    files_by_node: dict[str, tuple[EngineFile, ...]] = field(default_factory=dict)
    error: Failed | None = None  #: set when status is error


@dataclass(frozen=True)
class Finished:
    """Ran, and this came of it."""

    history: History


State = Absent | Queued | Running | Finished


def in_history(body: object, prompt_id: str) -> Finished | None:
    """Read `GET /history/{prompt_id}`; an unknown id answers 200 with {}."""
    entry = body.get(prompt_id) if isinstance(body, dict) else None
    if not isinstance(entry, dict):
        return None
    outputs = entry.get("outputs")
    outputs = outputs if isinstance(outputs, dict) else {}
    found = {node: files(output) for node, output in outputs.items()}
    files_by_node = {node: saved for node, saved in found.items() if saved}

    status = entry.get("status")
    status = status if isinstance(status, dict) else {}
    if status.get("status_str") == "success":
        return Finished(History("success", files_by_node))
    # Interrupted reads "error" too: only the messages tell them apart.
    error = Failed("", "", "", "")
    for name, data in _messages(status.get("messages")):
        if name == "execution_interrupted":
            return Finished(History("interrupted", files_by_node))
        if name == "execution_error":
            error = data
    return Finished(History("error", files_by_node, error))


def _messages(messages: object) -> Iterator[tuple[str, Failed]]:
    """Both shapes: ["execution_error", {…}] and, in the fork, "execution_error: …"."""
    for message in messages if isinstance(messages, list) else []:
        match message:
            case [str(name), dict(data)]:
                yield name, failed(data)
            case str(text):
                name, _, said = text.partition(":")
                yield name.strip(), failed({"exception_message": said})


def in_queue(body: object, prompt_id: str) -> Queued | Running | None:
    """Read `GET /queue`."""
    if any(item_id == prompt_id for _, item_id in _items(body, "queue_running")):
        return Running()
    # The list is a heap's array: only its first is in order.
    pending = sorted(_items(body, "queue_pending"))
    for position, (_, item_id) in enumerate(pending):
        if item_id == prompt_id:
            return Queued(position)
    return None


def sizes(body: object) -> tuple[int, int]:
    """Return how many prompts run and how many wait."""
    running = sum(1 for _ in _items(body, "queue_running"))
    pending = sum(1 for _ in _items(body, "queue_pending"))
    return running, pending


def _items(body: object, key: str) -> Iterator[tuple[float, str]]:
    """Yield (number, prompt id). Items are arrays, in the fork objects."""
    items = body.get(key) if isinstance(body, dict) else None
    for item in items if isinstance(items, list) else []:
        match item:
            case [int() | float() as number, str(prompt_id), *_]:
                yield number, prompt_id
            case {"prompt_id": str(prompt_id)}:
                number = item.get("priority")
                yield number if isinstance(number, int | float) else 0, prompt_id

"""
What ComfyUI says about a run, as typed events: one frame in, at most one event out.

Pure: no socket, no clock. A frame that is malformed, unknown or of no interest gives
None and never raises, because what arrives on a socket is not ours to trust.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_PREVIEW_BYTES = 8 * 2**20  #: previews seen are 22-34 KB; more is not a preview
MAX_MESSAGE_CHARS = 2000  #: of an exception's text; CUDA's own words are under 1000

_BINARY_PREVIEW = 1
_BINARY_PREVIEW_WITH_METADATA = 4
_IMAGE_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}


@dataclass(frozen=True)
class EngineFile:
    """A file that a node saved, in the words `GET /view` wants."""

    filename: str
    subfolder: str = ""  #: "" or relative, with forward slashes
    type: str = "output"  #: output, temp or input


@dataclass(frozen=True)
class Started:
    """The prompt left the queue and runs."""


@dataclass(frozen=True)
class Cached:
    """These nodes will not run: their results are still in memory."""

    nodes: frozenset[str]


@dataclass(frozen=True)
class Executing:
    """This node runs now."""

    node: str


@dataclass(frozen=True)
class Progress:
    """Steps done by the running node. Starts again at 1 for each sampler."""

    node: str
    value: float  #: 0…max
    max: float  #: over 0


@dataclass(frozen=True)
class NodeStates:
    """
    Every node that is no longer pending. Cached nodes may be absent.

    It repeats what Executing and Progress said, and so repairs what was missed.
    """

    finished: frozenset[str]
    running: tuple[Progress, ...]


@dataclass(frozen=True)
class Executed:
    """A node gave files. A cached output node says so too, with the old names."""

    node: str
    files: tuple[EngineFile, ...]


@dataclass(frozen=True)
class Preview:
    """The picture so far."""

    data: bytes = field(repr=False)
    content_type: str  #: image/jpeg or image/png, read from the data itself
    node: str | None = None


@dataclass(frozen=True)
class Succeeded:
    """Every output node ran. The history entry appears a moment later, see Ended."""


@dataclass(frozen=True)
class Failed:
    """
    A node raised.

    The text is the engine's own, with its paths: for the log and for
    `common.comfy.refusal.failure`, never for a caller.
    """

    node_id: str
    node_type: str
    exception_type: str  #: dotted, such as "torch.OutOfMemoryError"; "" = not told
    message: str


@dataclass(frozen=True)
class Interrupted:
    """The run obeyed an interrupt."""


@dataclass(frozen=True)
class Ended:
    """
    The run is over, however it went, and its history entry is there.

    Source: `executing` with node null, present in history 20 times of 20, where
    `execution_success` was up to a few milliseconds too early.
    """


Event = (
    Started
    | Cached
    | Executing
    | Progress
    | NodeStates
    | Executed
    | Preview
    | Succeeded
    | Failed
    | Interrupted
    | Ended
)


def loads(text: str) -> dict[str, object] | None:
    """Read a text frame's JSON object; None when it is not one."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def parse(message: Mapping[str, object]) -> tuple[str | None, Event] | None:
    """
    Return the prompt id and the event of a JSON message, or None.

    The id is None where ComfyUI leaves it out: `executing`, sent to a client that
    comes back.
    """
    data = message.get("data")
    if not isinstance(data, dict):
        return None
    event = _event(message.get("type"), data)
    if event is None:
        return None
    prompt_id = data.get("prompt_id")
    return (prompt_id if isinstance(prompt_id, str) else None), event


def _event(kind: object, data: dict[str, object]) -> Event | None:
    match kind:
        case "execution_start":
            return Started()
        case "execution_cached":
            return Cached(_names(data.get("nodes")))
        case "executing":
            if "node" in data and data["node"] is None:
                return Ended()
            node = _name(data.get("node"))
            return None if node is None else Executing(node)
        case "progress":
            return _progress(data.get("node"), data)
        case "progress_state":
            return _node_states(data.get("nodes"))
        case "executed":
            node = _name(data.get("node"))
            return None if node is None else Executed(node, files(data.get("output")))
        case "execution_success":
            return Succeeded()
        case "execution_error":
            return failed(data)
        case "execution_interrupted":
            return Interrupted()
    return None


def failed(data: Mapping[str, object]) -> Failed:
    """Read the body of an `execution_error`; what is absent becomes ""."""

    def text(key: str) -> str:
        value = data.get(key)
        return value.strip()[:MAX_MESSAGE_CHARS] if isinstance(value, str) else ""

    return Failed(
        _name(data.get("node_id")) or "",
        text("node_type"),
        text("exception_type"),
        text("exception_message"),
    )


def files(output: object) -> tuple[EngineFile, ...]:
    """
    Return the files of a node's output, whatever key they are under.

    SaveVideo puts its mp4 under "images", SaveAudio under "audio", others under "gifs".
    """
    if not isinstance(output, dict):
        return ()
    return tuple(
        EngineFile(item["filename"], _text(item, "subfolder"), _text(item, "type"))
        for group in output.values()
        if isinstance(group, list)
        for item in group
        if isinstance(item, dict)
        and isinstance(item.get("filename"), str)
        and item["filename"]
    )


def parse_binary(frame: bytes) -> tuple[str | None, Preview] | None:
    """
    Return the prompt id and the preview of a binary frame, or None.

    Type 1 carries no id: u32 type, u32 image type, image. Type 4, sent once
    `feature_flags` asked for it: u32 type, u32 length, that much JSON, image.
    """
    if not 8 <= len(frame) <= MAX_PREVIEW_BYTES:
        return None
    kind, second = struct.unpack_from(">II", frame)
    if kind == _BINARY_PREVIEW:
        return _preview(None, frame[8:], None)
    if kind != _BINARY_PREVIEW_WITH_METADATA or second > len(frame) - 8:
        return None
    metadata = loads(frame[8 : 8 + second].decode("utf-8", "replace"))
    if metadata is None:
        return None
    prompt_id = metadata.get("prompt_id")
    node = _name(metadata.get("node_id"))
    return _preview(
        prompt_id if isinstance(prompt_id, str) else None, frame[8 + second :], node
    )


def _preview(
    prompt_id: str | None, image: bytes, node: str | None
) -> tuple[str | None, Preview] | None:
    for magic, content_type in _IMAGE_KINDS.items():
        if image.startswith(magic):
            return prompt_id, Preview(bytes(image), content_type, node)
    return None


def _progress(node: object, data: Mapping[str, object]) -> Progress | None:
    name, value, most = (
        _name(node),
        _number(data.get("value")),
        _number(data.get("max")),
    )
    if name is None or value is None or most is None or most <= 0:
        return None
    return Progress(name, min(max(value, 0.0), most), most)


def _node_states(nodes: object) -> NodeStates | None:
    if not isinstance(nodes, dict):
        return None
    states = {k: v for k, v in nodes.items() if isinstance(v, dict)}
    running = (
        _progress(k, v) for k, v in states.items() if v.get("state") == "running"
    )
    return NodeStates(
        frozenset(k for k, v in states.items() if v.get("state") == "finished"),
        tuple(progress for progress in running if progress is not None),
    )


def _name(value: object) -> str | None:
    """Node ids are strings; a few custom nodes send the number."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9:
        return str(value)
    return value if isinstance(value, str) and value else None


def _names(value: object) -> frozenset[str]:
    items = value if isinstance(value, list) else []
    return frozenset(name for name in map(_name, items) if name is not None)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _text(item: Mapping[str, object], key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""

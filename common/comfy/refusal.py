"""
Why ComfyUI refused a workflow: its validation errors in our own words.

Pure. What ComfyUI sends also holds a server traceback, every file name of a models
folder and the values it was given; none of that leaves here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from common.comfy.scrub import scrub

_WEIGHTS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
_NODE_ID = re.compile(r"#(\S+?)'?$")
_CLASS = re.compile(r"node (\S+) does not exist|Node '(\S+)' not found")


@dataclass(frozen=True)
class NodeError:
    """One complaint; `message` may be shown, `details` is for the log and experts."""

    node_id: str | None  #: None = the workflow as a whole
    class_type: str | None
    input: str | None
    kind: str  #: ComfyUI's `type`, such as value_not_in_list
    message: str
    details: str = ""

    @property
    def missing_weights(self) -> bool:
        """
        Tell whether the value that is not in the list names a weights file.

        ComfyUI has no error of its own for a model file that is absent.
        """
        return (
            self.kind == "value_not_in_list"
            and "Loader" in (self.class_type or "")
            and self.details.lower().endswith(_WEIGHTS)
        )


class WorkflowRejected(Exception):
    """ComfyUI validated the workflow and refused it, whole or in part."""

    def __init__(self, errors: Iterable[NodeError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(error.message for error in self.errors[:3]))

    @property
    def code(self) -> str:
        """The job's error code."""
        if any(error.missing_weights for error in self.errors):
            return "missing_model"
        return "invalid_workflow"

    @property
    def hint(self) -> str:
        """What to do about it."""
        if self.code == "missing_model":
            names = sorted({e.details for e in self.errors if e.missing_weights})
            return f"put {', '.join(names)} into the engine's models folder"
        if any(error.kind == "missing_node_type" for error in self.errors):
            return "install the custom node in ComfyUI, or export the workflow without"
        return "export the workflow again from this ComfyUI"


def rejection(body: object) -> WorkflowRejected:
    """
    Read the body of a refused `POST /prompt` (400, or 200 with `node_errors`).

    `error.details` is empty when the fault lies upstream of the output node, so the
    nodes speak first and the top level only when they are silent.
    """
    body = body if isinstance(body, dict) else {}
    errors = tuple(_node_errors(body.get("node_errors")))
    return WorkflowRejected(errors or (_top_level(body.get("error")),))


def _node_errors(nodes: object) -> Iterator[NodeError]:
    if not isinstance(nodes, dict):
        return
    for node_id, node in nodes.items():
        if isinstance(node, dict) and isinstance(node.get("errors"), list):
            class_type = _text(node, "class_type") or None
            for error in node["errors"]:
                if isinstance(error, dict):
                    yield _node_error(str(node_id), class_type, error)


def _node_error(
    node_id: str, class_type: str | None, error: Mapping[str, object]
) -> NodeError:
    extra = error.get("extra_info")
    extra = extra if isinstance(extra, dict) else {}
    kind = _text(error, "type") or "unknown"
    input_name = _text(extra, "input_name") or None
    received = _shown(extra.get("received_value"))
    details = _text(error, "details")
    if kind == "value_not_in_list":
        details = received  # the rest lists every file of the folder
    elif kind == "invalid_input_type":
        details = ""  # quotes the value, which may be the prompt
    what = _words(kind, input_name or "an input", received, extra)
    if what is None:
        what = ": ".join(filter(None, (scrub(_text(error, "message")), scrub(details))))
    where = f"{class_type or 'node'} (node {node_id})"
    return NodeError(
        node_id, class_type, input_name, kind, f"{where}: {what}", scrub(details)
    )


def _words(
    kind: str, name: str, received: str, extra: Mapping[str, object]
) -> str | None:
    """Say the kinds we know; None = ComfyUI's own words are the best there are."""
    spec = extra.get("input_config")
    spec = spec if isinstance(spec, list) else []
    wants = spec[0] if spec and isinstance(spec[0], str) else "another type"
    limits = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    match kind:
        case "value_smaller_than_min":
            return f"{name} {received} is below {_shown(limits.get('min'))}"
        case "value_bigger_than_max":
            return f"{name} {received} is above {_shown(limits.get('max'))}"
        case "value_not_in_list":
            return f"{name} {received!r} is not among what the engine has"
        case "required_input_missing":
            return f"{name} is missing"
        case "invalid_input_type":
            return f"{name} must be {wants}"
        case "return_type_mismatch":
            given = _text(extra, "received_type") or "another type"
            return f"{name} is linked to {given}, needs {wants}"
        case "exception_during_inner_validation":
            return f"{name} is linked to a node or output that does not exist"
    return None


def _top_level(error: object) -> NodeError:
    error = error if isinstance(error, dict) else {}
    kind = _text(error, "type") or "unknown"
    message = _text(error, "message") or "the workflow was refused"
    node = _NODE_ID.search(_text(error, "details"))
    unknown_class = _CLASS.search(message)
    class_type = None
    if unknown_class:
        # 0.3.64 calls it invalid_prompt, as much else; later versions name it.
        kind = "missing_node_type"
        class_type = scrub(unknown_class[1] or unknown_class[2])
        message = f"the engine has no node {class_type}"
    node_id = scrub(node[1]) if node else None
    return NodeError(node_id, class_type, None, kind, scrub(message))


def _shown(value: object) -> str:
    """Numbers and short names may be shown; a long text is somebody's prompt."""
    if isinstance(value, str):
        return scrub(value, max_chars=120)
    return f"{value}"[:40] if isinstance(value, int | float) else ""


def _text(item: Mapping[str, object], key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""

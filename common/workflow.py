"""
An exported ComfyUI workflow: nodes addressed by title, patched on a copy.

Pure. The shape is that of `workflow_api.json` ("Export (API)" in ComfyUI's editor):
`{id: {"class_type", "inputs", "_meta": {"title"}}}`; a link is `[id, output]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Node = dict[str, Any]

# What loader nodes load. Only safetensors and pinned GGUF are taken (see SECURITY.md).
WEIGHT_SUFFIXES = (".safetensors", ".gguf")


class WorkflowMismatch(Exception):
    """A title or an input that a wrapper names is not in its workflow, or is twice."""


@dataclass(frozen=True)
class Workflow:
    """A graph that belongs to whoever holds it; `copy` before patching."""

    nodes: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Workflow:
        """Read a `workflow_api.json`."""
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def copy(self) -> Workflow:
        """Return a copy to patch: nodes and inputs are its own, values are shared."""
        return Workflow(
            {
                id_: {**node, "inputs": dict(node["inputs"])}
                for id_, node in self.nodes.items()
            }
        )

    def id_of(self, title: str) -> str:
        """
        Return the id of the one node with this title.

        Raises:
            WorkflowMismatch: no node has it, or several have.
        """
        found = [id_ for id_, node in self.nodes.items() if title_of(node) == title]
        if len(found) != 1:
            titles = ", ".join(sorted({title_of(node) for node in self.nodes.values()}))
            raise WorkflowMismatch(
                f"{len(found)} nodes are titled {title!r}; the workflow has: {titles}"
            )
        return found[0]

    def repeats(self, title: str) -> tuple[str, ...]:
        """Return the ids of a node and of its repeats, which are titled "title, …"."""
        return tuple(
            id_
            for id_, node in self.nodes.items()
            if title_of(node) == title or title_of(node).startswith(f"{title}, ")
        )

    def node(self, title: str) -> Node:
        """Return the one node with this title."""
        return self.nodes[self.id_of(title)]

    def inputs(self, title: str, input_: str) -> dict[str, Any]:
        """Return the inputs of a node that is known to have `input_`."""
        inputs: dict[str, Any] = self.node(title)["inputs"]
        if input_ not in inputs:
            has = ", ".join(sorted(inputs))
            raise WorkflowMismatch(
                f"node {title!r} has no input {input_!r}, but: {has}"
            )
        return inputs

    def patch(self, title: str, input_: str, value: object) -> None:
        """Replace the value of an existing input."""
        self.inputs(title, input_)[input_] = value

    def unlink(self, title: str, input_: str) -> None:
        """Remove an optional input, and every node that only fed it."""
        del self.inputs(title, input_)[input_]
        self._prune(keep=self.id_of(title))

    def splice(self, title: str, input_: str, class_type: str, **values: object) -> str:
        """
        Put a new node into the link that feeds `input_`, and return its id.

        The new node gets the old link under the same input name, and feeds its first
        output onwards: `Loader → Sampler` becomes `Loader → new → Sampler`.
        """
        inputs = self.inputs(title, input_)
        new = str(max((int(id_) for id_ in self.nodes if id_.isdigit()), default=0) + 1)
        self.nodes[new] = {
            "class_type": class_type,
            "inputs": {input_: inputs[input_], **values},
            "_meta": {"title": class_type},
        }
        inputs[input_] = [new, 0]
        return new

    def bypass(self, title: str, input_: str) -> None:
        """Take a node out: what reads its output reads what feeds `input_` instead."""
        fed = self.inputs(title, input_)[input_]
        gone = self.id_of(title)
        del self.nodes[gone]
        for node in self.nodes.values():
            for name, value in node["inputs"].items():
                if is_link(value) and value[0] == gone:
                    node["inputs"][name] = fed

    def links(self) -> Iterator[tuple[str, str]]:
        """Yield (from id, to id) for each link."""
        for id_, node in self.nodes.items():
            for value in node["inputs"].values():
                if is_link(value):
                    yield value[0], id_

    def weights(self) -> dict[str, tuple[str, str]]:
        """Return {file name: (class_type, input)} of the weights that are loaded."""
        return {
            value: (node["class_type"], name)
            for node in self.nodes.values()
            for name, value in node["inputs"].items()
            if isinstance(value, str) and value.endswith(WEIGHT_SUFFIXES)
        }

    def _prune(self, keep: str) -> None:
        """Drop nodes that feed nothing, except outputs and the node to keep."""
        sinks = {keep, *self._sinks()}
        while True:
            used = {source for source, _ in self.links()}
            idle = [id_ for id_ in self.nodes if id_ not in used and id_ not in sinks]
            if not idle:
                return
            for id_ in idle:
                del self.nodes[id_]

    def _sinks(self) -> set[str]:
        """Return the nodes that nobody reads from although they are outputs."""
        used = {source for source, _ in self.links()}
        return {id_ for id_ in self.nodes if id_ not in used and self._is_output(id_)}

    def _is_output(self, id_: str) -> bool:
        class_type: str = self.nodes[id_]["class_type"]
        return class_type.startswith(("Save", "Preview"))


def title_of(node: Node) -> str:
    """Return a node's title; ComfyUI shows the class where none was given."""
    title: str = node.get("_meta", {}).get("title") or node["class_type"]
    return title


def is_link(value: object) -> bool:
    """Tell a link from a plain value, by ComfyUI's own rule (`graph_utils.is_link`)."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )

"""
Which node runs next, and which need not run: pure.

The order is ComfyUI's: from the outputs upstream, and what leads to an output soonest
goes first. Source: the order of nodes in recorded runs of five workflows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from common.engine.validate import Graph, is_link


def sources(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the nodes that feed this one, once per link."""
    for value in node["inputs"].values():
        if is_link(value):
            yield value[0]


def signatures(graph: Graph, stamp: Callable[[str], str]) -> dict[str, str]:
    """
    Return what makes each node's result what it is: its class, inputs and all upstream.

    `stamp` gives what is not in the graph, such as the hash of a file that a node
    reads. A node that cannot be signed, because its links are wrong, is left out.
    """
    signed: dict[str, str] = {}

    def sign(node_id: str) -> str:
        if node_id not in signed:
            node = graph[node_id]
            inputs = {
                name: [sign(value[0]), value[1]] if is_link(value) else value
                for name, value in node["inputs"].items()
            }
            facts = [node["class_type"], inputs, stamp(node_id)]
            text = json.dumps(facts, sort_keys=True)
            signed[node_id] = hashlib.sha256(text.encode()).hexdigest()
        return signed[node_id]

    for node_id in graph:
        with suppress(LookupError, TypeError, AttributeError, RecursionError):
            sign(node_id)
    return signed


class Order:
    """The nodes that have to run, handed out one by one."""

    def __init__(
        self,
        graph: Graph,
        outputs: Collection[str],
        is_output: Callable[[str], bool],
        is_cached: Callable[[str], bool],
    ) -> None:
        self._is_output = is_output
        self._waits: dict[str, set[str]] = {}  # staged node -> what it still waits for
        self._feeds: dict[str, set[str]] = {}  # staged node -> who waits for it
        for output in outputs:
            stack = [output]
            while stack:
                node_id = stack.pop()
                if node_id in self._waits:
                    continue
                waits = self._waits[node_id] = set()
                for source in sources(graph[node_id]):
                    if not is_cached(source):
                        waits.add(source)
                        stack.append(source)
                        self._feeds.setdefault(source, set()).add(node_id)

    def __iter__(self) -> Iterator[str]:
        """Yield node after node; one counts as done when the next is asked for."""
        while self._waits:
            ready = [node for node, waits in self._waits.items() if not waits]
            node_id = min(ready, key=self._distance)
            yield node_id
            del self._waits[node_id]
            for waits in self._waits.values():
                waits.discard(node_id)

    def _distance(self, node_id: str) -> int:
        """Return how many links the nearest output is away; farther than 2 is 3."""
        near = {node_id}
        for distance in range(3):
            if any(self._is_output(node) for node in near):
                return distance
            near = {n for node in near for n in self._feeds.get(node, ())}
        return 3

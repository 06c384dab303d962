"""
One prompt on its way through the worker, node by node.

What it says, and in which order, is what ComfyUI says. Source: recorded runs.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.engine.definitions import Definition, Library
from common.engine.faults import Faults
from common.engine.promptqueue import Entry, Item
from common.engine.run import Interrupted, NodeFailed, Nodes, Run, Shown
from common.engine.schedule import Order, signatures
from common.engine.settings import EngineSettings
from common.engine.validate import is_link, specs_of
from common.engine.voice import Voice

#: What ComfyUI reports when CUDA has no memory left.
OUT_OF_MEMORY = (
    "torch.OutOfMemoryError",
    "Allocation on device \nThis error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the "
    "batch_size to a large number.",
)


@dataclass
class Workshop:
    """What all prompts of an engine share."""

    settings: EngineSettings
    library: Library
    faults: Faults
    nodes: Nodes
    voice: Voice
    #: results of the last prompt's nodes, by signature
    cache: dict[str, tuple[Any, ...] | Shown] = field(default_factory=dict)


class PromptRun:
    """Runs one prompt once."""

    def __init__(self, shop: Workshop, item: Item) -> None:
        self._shop = shop
        self._voice = shop.voice
        self._faults = shop.faults
        self._item = item
        self._definitions = shop.library.definitions()
        self._states: dict[str, dict[str, Any]] = {}
        self._messages: list[tuple[str, dict[str, Any]]] = []
        self._ui: dict[str, dict[str, list[Any]]] = {}
        self._meta: dict[str, Any] = {}
        self._executed: list[str] = []
        self._hidden = self._faults.take("no_outputs") is not None

    def run(self) -> Entry:
        """Run the prompt to its end, whatever that is."""
        item, cache = self._item, self._shop.cache
        self._voice.at = (item.client_id, None)
        signed = signatures(item.graph, self._stamp)
        self._message("execution_start")
        cached = [n for n in item.graph if signed.get(n) in cache]
        self._message("execution_cached", nodes=cached)
        known = set(cached)
        order = Order(
            item.graph,
            item.outputs,
            is_output=lambda n: bool(self._definition(n)["output_node"]),
            is_cached=known.__contains__,
        )
        item_state = "success"
        for node_id in order:
            if node_id in known:
                self._show_cached(node_id, cache[signed[node_id]])
                continue
            failed = self._node(node_id, signed)
            if failed is not None:
                item_state = failed
                break
            known.add(node_id)
        # Only what this prompt is made of stays.
        keep = set(signed.values())
        for signature in [s for s in cache if s not in keep]:
            del cache[signature]
        if item_state == "success":
            self._message("execution_success")
        item.state = "deleted" if item.forgotten else item_state
        delay_s = self._faults.take("delay_history_s") or 0.0
        return Entry(
            item,
            {} if self._hidden else self._ui,
            {} if self._hidden else self._meta,
            self._messages,
            visible_at=time.monotonic() + delay_s,
        )

    def _definition(self, node_id: str) -> Definition:
        return self._definitions[self._class(node_id)]

    def _class(self, node_id: str) -> str:
        class_type: str = self._item.graph[node_id]["class_type"]
        return class_type

    def _stamp(self, node_id: str) -> str:
        node = self._item.graph[node_id]
        stamp = self._shop.nodes.stamps.get(node["class_type"])
        return stamp(self._shop.settings, node["inputs"]) if stamp else ""

    def _message(self, kind: str, **data: Any) -> None:
        """Say something and keep it for the history."""
        data |= {
            "prompt_id": self._item.prompt_id,
            "timestamp": int(time.time() * 1000),
        }
        self._messages.append((kind, data))
        self._voice.say(self._item, kind, data)

    def _state(self, node_id: str, state: str, value: float, maximum: float) -> None:
        """Say where every node that has begun is."""
        self._states[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            **self._about(node_id),
        }
        data = {"prompt_id": self._item.prompt_id, "nodes": self._states}
        self._voice.say(self._item, "progress_state", data)

    def _about(self, node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            "prompt_id": self._item.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }

    def _progress(self, node_id: str, value: int, top: int, jpeg: bytes | None) -> None:
        self._state(node_id, "running", value, top)
        # A client that asked for metadata gets the picture first, others after.
        if jpeg is not None:
            self._voice.show(self._item, jpeg, self._about(node_id))
        data: dict[str, Any] = {"value": value, "max": top}
        data |= {"prompt_id": self._item.prompt_id, "node": node_id}
        self._voice.say(self._item, "progress", data)
        if jpeg is not None:
            self._voice.show(self._item, jpeg, None)

    def _show(self, node_id: str, shown: Shown) -> None:
        """Announce what an output node has saved."""
        self._ui[node_id] = shown.ui
        self._meta[node_id] = {
            "node_id": node_id,
            "display_node": node_id,
            "parent_node": None,
            "real_node_id": node_id,
        }
        if not self._hidden:
            data = {"node": node_id, "display_node": node_id, "output": shown.ui}
            data["prompt_id"] = self._item.prompt_id
            self._voice.say(self._item, "executed", data)

    def _show_cached(self, node_id: str, result: tuple[Any, ...] | Shown) -> None:
        if isinstance(result, Shown):
            self._show(node_id, result)
        self._state(node_id, "finished", 1, 1)

    def _node(self, node_id: str, signed: Mapping[str, str]) -> str | None:
        """Run one node; None = it is done, else the state that the prompt ends in."""
        item = self._item
        self._voice.at = (item.client_id, node_id)
        # Before anybody hears of the node, who may then take the fault away again.
        hangs = self._faults.take("hang_at_node", node_id, self._class(node_id))
        self._state(node_id, "running", 0.0, 1.0)
        data: dict[str, Any] = {"node": node_id, "display_node": node_id}
        self._voice.say(item, "executing", data | {"prompt_id": item.prompt_id})
        try:
            if hangs:
                item.stop.wait()
            inputs = self._inputs(node_id, signed)
            result = self._call(node_id, inputs)
        except Interrupted:
            if not item.forgotten:
                self._message("execution_interrupted", **self._where(node_id))
            return "interrupted"
        except Exception as error:  # noqa: BLE001 - any failure of a node is the prompt's
            self._message("execution_error", **self._failure(node_id, error))
            return "error"
        self._shop.cache[signed[node_id]] = result
        if isinstance(result, Shown):
            self._show(node_id, result)
        top = self._states[node_id]["max"]
        self._state(node_id, "finished", top, top)
        self._executed.append(node_id)
        return None

    def _inputs(self, node_id: str, signed: Mapping[str, str]) -> dict[str, Any]:
        """Return the inputs that a node knows, links followed."""
        given = self._item.graph[node_id]["inputs"]
        known = specs_of(self._definition(node_id), given)
        inputs: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                continue
            inputs[name] = value
            if is_link(value):
                outputs = self._shop.cache[signed[value[0]]]
                assert isinstance(outputs, tuple)
                inputs[name] = outputs[value[1]]
        return inputs

    def _call(self, node_id: str, inputs: dict[str, Any]) -> tuple[Any, ...] | Shown:
        class_type = self._class(node_id)
        run = Run(
            self._item,
            node_id,
            self._shop.settings,
            self._shop.library,
            self._faults,
            lambda value, top, jpeg: self._progress(node_id, value, top, jpeg),
        )
        self._break(node_id, class_type)
        run.check()
        return self._shop.nodes.functions[class_type](run, **inputs)

    def _break(self, *place: str) -> None:
        """Do what a test wants to happen at this node."""
        if self._faults.take("crash_at_node", *place):
            os._exit(137)
        if self._faults.take("oom_at_node", *place):
            raise NodeFailed(*OUT_OF_MEMORY)
        if wanted := self._faults.take("error_at_node", *place):
            wanted = wanted if isinstance(wanted, dict) else {}
            kind = wanted.get("type", "RuntimeError")
            raise NodeFailed(kind, wanted.get("message", "broken on purpose"))

    def _where(self, node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            "node_type": self._class(node_id),
            "executed": list(self._executed),
        }

    def _failure(self, node_id: str, error: Exception) -> dict[str, Any]:
        """Return an execution_error's data."""
        kind = error.kind if isinstance(error, NodeFailed) else _full_name(type(error))
        inputs = self._item.graph[node_id]["inputs"]
        return self._where(node_id) | {
            "exception_message": f"{error}\n",
            "exception_type": kind,
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [str(value)] for name, value in inputs.items()},
            "current_outputs": list(self._item.graph),
        }


def _full_name(kind: type) -> str:
    module = kind.__module__
    return (
        kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    )

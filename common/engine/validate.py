"""
Judge a workflow graph by its node definitions, with ComfyUI's own words.

Pure: the graph, the definitions and a few class-specific checks go in, a verdict comes
out. Source: recorded answers of ComfyUI 0.3.64, 0.12.1 and 0.33.0, to good graphs and
bad ones.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.engine.definitions import Definition

Graph = dict[str, Any]  #: ComfyUI's "prompt": node id -> {"class_type", "inputs", …}
Problem = dict[str, Any]  #: {"type", "message", "details", "extra_info"}

#: A class's own check of one input: None, or what is wrong with the value.
Check = Callable[[Any], str | None]

#: Combos longer than this are not spelled out in an error. Source: recorded.
LONG_LIST = 20

#: What comes of following links and inputs that are not what they should be.
BROKEN = (LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Verdict:
    """What POST /prompt answers, before anything is queued."""

    graph: Graph  #: with values converted: "5" to 5, 2.7 to 2, None to "None"
    outputs: list[str] = field(default_factory=list)  #: output nodes that may run
    error: Problem | None = None  #: set = nothing may run
    node_errors: dict[str, dict[str, Any]] = field(default_factory=dict)


def problem(kind: str, message: str, details: str, **extra: Any) -> Problem:
    """Return one problem in ComfyUI's shape."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def is_link(value: Any) -> bool:
    """Tell whether an input's value is a link [node id, output index]."""
    return isinstance(value, list)


def validate(
    graph: Graph,
    definitions: Mapping[str, Definition],
    checks: Mapping[tuple[str, str], Check] | None = None,
) -> Verdict:
    """
    Judge a graph.

    `checks` are keyed by (class, input) and stand in for that input's list of choices.
    """
    graph = copy.deepcopy(graph)
    if (error := _unknown_class(graph, definitions)) is not None:
        return Verdict(graph, error=error)
    ends = [n for n in graph if definitions[graph[n]["class_type"]]["output_node"]]
    if not ends:
        error = problem("prompt_no_outputs", "Prompt has no outputs", "")
        return Verdict(graph, error=error)
    judge = _Judge(graph, definitions, checks or {})
    good: list[str] = []
    details: list[str] = []
    node_errors: dict[str, dict[str, Any]] = {}
    for end in ends:
        seen = judge.judge_output(end)
        if seen[end].good:
            good.append(end)
            continue
        details += [f"{p['message']}: {p['details']}" for p in seen[end].problems]
        for node, opinion in seen.items():
            # A node below a wrong one is not good either, but has nothing to say.
            if opinion.problems:
                entry = {
                    "errors": opinion.problems,
                    "dependent_outputs": [],
                    "class_type": graph[node]["class_type"],
                }
                dependents = node_errors.setdefault(node, entry)["dependent_outputs"]
                dependents.append(end)
    if good:
        return Verdict(graph, good, None, node_errors)
    error = problem(
        "prompt_outputs_failed_validation",
        "Prompt outputs failed validation",
        "\n".join(details),
    )
    return Verdict(graph, [], error, node_errors)


def _unknown_class(
    graph: Graph, definitions: Mapping[str, Definition]
) -> Problem | None:
    for node_id, node in graph.items():
        class_type = node.get("class_type") if isinstance(node, dict) else None
        if class_type is None:
            message = "a node is missing the class_type property."
        elif not isinstance(class_type, str) or class_type not in definitions:
            message = f"node {class_type} does not exist."
        else:
            continue
        return problem(
            "invalid_prompt",
            f"Cannot execute because {message}",
            f"Node ID '#{node_id}'",
        )
    return None


class _Cycle(Exception):
    """A node is its own input, directly or by others."""


@dataclass
class _Opinion:
    good: bool
    problems: list[Problem]


class _Judge:
    """Walks upstream from the outputs, judging each node once."""

    def __init__(
        self,
        graph: Graph,
        definitions: Mapping[str, Definition],
        checks: Mapping[tuple[str, str], Check],
    ) -> None:
        self._graph = graph
        self._definitions = definitions
        self._checks = checks
        self._opinions: dict[str, _Opinion] = {}
        self._open: set[str] = set()
        self._path: dict[str, _Opinion] = {}

    def judge_output(self, node_id: str) -> dict[str, _Opinion]:
        """Judge an output and all above it; return what was seen on the way."""
        self._path = {}
        self._open.clear()
        try:
            self._node(node_id)
        except (*BROKEN, _Cycle) as error:
            found = _exception("exception_during_validation", "node", error)
            self._note(node_id, _Opinion(good=False, problems=[found]))
        return self._path

    def _note(self, node_id: str, opinion: _Opinion) -> _Opinion:
        self._opinions[node_id] = self._path[node_id] = opinion
        return opinion

    def _node(self, node_id: str) -> _Opinion:
        if (known := self._opinions.get(node_id)) is not None:
            self._path[node_id] = known
            return known
        if node_id in self._open:
            raise _Cycle(f"node {node_id} leads to itself: the graph has a cycle")
        self._open.add(node_id)
        node = self._graph[node_id]
        inputs = node.setdefault("inputs", {})
        opinion = _Opinion(good=True, problems=[])
        for name, (spec, required) in specs_of(self._of(node_id), inputs).items():
            if name not in inputs:
                if required:
                    message = "Required input is missing"
                    opinion.problems.append(
                        problem(
                            "required_input_missing", message, name, input_name=name
                        )
                    )
                continue
            if is_link(inputs[name]):
                opinion.good &= self._link(name, spec, inputs[name], opinion.problems)
            else:
                check = self._checks.get((node["class_type"], name))
                inputs[name], found = _value(name, spec, inputs[name], check)
                opinion.problems.extend(found)
        opinion.good &= not opinion.problems
        self._open.discard(node_id)
        return self._note(node_id, opinion)

    def _of(self, node_id: str) -> Definition:
        return self._definitions[self._graph[node_id]["class_type"]]

    def _link(
        self, name: str, spec: list[Any], link: list[Any], problems: list[Problem]
    ) -> bool:
        """Judge a link and the node behind it; False if that node is not good."""
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot]"
            extra = {"input_config": spec, "received_value": link}
            problems.append(
                problem("bad_linked_input", message, name, input_name=name, **extra)
            )
            return False
        source, slot = link
        received = tuple(self._of(source)["output"])[slot]
        if not _fits(received, spec[0]):
            problems.append(
                problem(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    f"{name}, received_type({received}) mismatch input_type({spec[0]})",
                    input_name=name,
                    input_config=spec,
                    received_type=received,
                    linked_node=link,
                )
            )
            return False
        try:
            return self._node(source).good
        except BROKEN as error:
            found = _exception(
                "exception_during_inner_validation",
                "inner node",
                error,
                input_name=name,
                input_config=spec,
                linked_node=link,
            )
            return self._note(source, _Opinion(good=False, problems=[found])).good


def specs_of(
    definition: Definition, inputs: Mapping[str, Any]
) -> dict[str, tuple[list[Any], bool]]:
    """
    Return each input's spec, and whether it is required.

    A dynamic combo adds the inputs of the option that is chosen, as "combo.input". One
    that is not given is never missed: ComfyUI 0.33 takes SaveVideo without its
    "format.codec". An unknown option it takes too, and fails as it runs; we refuse it.
    """
    specs: dict[str, tuple[list[Any], bool]] = {}
    groups = [("", definition["input"])]
    while groups:
        prefix, group = groups.pop()
        for kind in ("required", "optional"):
            for name, spec in group.get(kind, {}).items():
                full = prefix + name
                dynamic = spec[0] == "COMFY_DYNAMICCOMBO_V3"
                specs[full] = (spec, kind == "required" and not dynamic)
                if spec[0] == "COMFY_AUTOGROW_V3":
                    specs.pop(full)
                    specs |= _grown(full, spec[1]["template"])
                if dynamic:
                    groups += [
                        (f"{full}.", option["inputs"])
                        for option in spec[1]["options"]
                        if option["key"] == inputs.get(full)
                    ]
    return specs


def _grown(name: str, template: Mapping[str, Any]) -> dict[str, tuple[Any, bool]]:
    """Return the numbered inputs of a list that grows, such as "images.image0"."""
    [(_, spec)] = template["input"]["required"].items()
    return {
        f"{name}.{template['prefix']}{number}": (spec, number < template["min"])
        for number in range(template["max"])
    }


def choices(spec: list[Any]) -> list[Any] | None:
    """Return what a combo offers (three shapes of them exist), or None."""
    if isinstance(spec[0], list):
        return list(spec[0])
    if spec[0] == "COMBO":
        return list(spec[1]["options"])
    if spec[0] == "COMFY_DYNAMICCOMBO_V3":
        return [option["key"] for option in spec[1]["options"]]
    return None


def _fits(received: Any, wanted: Any) -> bool:
    if received == wanted or "*" in (received, wanted):
        return True
    if isinstance(received, str) and isinstance(wanted, str):
        return set(received.split(",")) <= set(wanted.split(","))
    return received == "COMBO" and isinstance(wanted, list)


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "INT": int,
    "FLOAT": float,
    "STRING": str,
    "BOOLEAN": bool,
}


def _value(
    name: str, spec: list[Any], value: Any, check: Check | None
) -> tuple[Any, list[Problem]]:
    """Return the converted value and what is wrong with it."""
    kind = spec[0]
    about = {"input_name": name, "input_config": spec, "received_value": value}
    if isinstance(kind, str) and kind in _CONVERT:
        try:
            value = _CONVERT[kind](value)
        except (TypeError, ValueError, OverflowError) as error:
            message = f"Failed to convert an input value to a {kind} value"
            details = f"{name}, {value}, {error}"
            extra = about | {"exception_message": str(error)}
            return value, [problem("invalid_input_type", message, details, **extra)]
        about["received_value"] = value
    limits = spec[1] if len(spec) > 1 else {}
    if check is not None:
        if (wrong := check(value)) is None:
            return value, []
        message = "Custom validation failed for node"
        details = f"{name} - {wrong}"
        kind = "custom_validation_failed"
        return value, [problem(kind, message, details, input_name=name)]
    if "min" in limits and value < limits["min"]:
        message = f"Value {value} smaller than min of {limits['min']}"
        return value, [problem("value_smaller_than_min", message, name, **about)]
    if "max" in limits and value > limits["max"]:
        message = f"Value {value} bigger than max of {limits['max']}"
        return value, [problem("value_bigger_than_max", message, name, **about)]
    offered = choices(spec)
    if offered is not None and value not in offered:
        listed = str(offered)
        if len(offered) > LONG_LIST:
            listed = f"(list of length {len(offered)})"
            about["input_config"] = None
        details = f"{name}: '{value}' not in {listed}"
        message = "Value not in list"
        return value, [problem("value_not_in_list", message, details, **about)]
    return value, []


def _exception(kind: str, where: str, error: Exception, **extra: Any) -> Problem:
    details = str(error)
    return problem(
        kind,
        f"Exception when validating {where}",
        details,
        **extra,
        exception_message=details,
        exception_type=type(error).__name__,
        traceback=traceback.format_tb(error.__traceback__),
    )

"""What a node may do while it runs: say how far it is, pretend to work, be stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from common.engine.definitions import Library
from common.engine.faults import Faults
from common.engine.promptqueue import Item
from common.engine.settings import EngineSettings


class Interrupted(Exception):
    """Somebody asked the running prompt to stop."""


class NodeFailed(Exception):
    """A node fails with an exception of a library that is not here, such as torch."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind  #: the full name of the exception type


@dataclass(frozen=True)
class Shown:
    """What an output node has saved, as `executed` and the history report it."""

    ui: dict[str, list[Any]]


#: A node: takes a Run and its inputs by name, returns its outputs or what it has shown.
Node = Callable[..., tuple[Any, ...] | Shown]


class Nodes(NamedTuple):
    """What classes there are, and what they read besides their inputs."""

    functions: Mapping[str, Node]
    #: class -> hash of what its inputs only name, such as a file's bytes
    stamps: Mapping[str, Callable[[EngineSettings, Mapping[str, Any]], str]]


@dataclass(frozen=True)
class Run:
    """One node of one prompt."""

    item: Item
    node_id: str
    settings: EngineSettings
    library: Library
    faults: Faults
    #: value, maximum and a JPEG, or None
    report: Callable[[int, int, bytes | None], None]

    def check(self) -> None:
        """
        Give way to an interrupt; called between steps and between frames.

        Raises:
            Interrupted: the prompt was asked to stop.
        """
        if self.item.stop.is_set():
            raise Interrupted

    def pretend(self, seconds: float) -> None:
        """Take as long as `seconds` of real work at this engine's speed."""
        self.item.stop.wait(self.settings.pretended_s(seconds))
        self.check()

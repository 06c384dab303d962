"""
A service: one request class, one workflow, one folder. What a wrapper declares.

Nothing runs here; `common.runtime` gives it engines, a store and a life.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from common.estimate import Memory
from common.modes import Mode, modes
from common.request import Request, Variant
from common.workflow import Workflow

WRAPPER = "api_wrapper.py"
WORKFLOW = "workflow_api.json"


class NoSuchService(Exception):
    """No folder, or several, fit the name."""


@dataclass(frozen=True)
class Service:
    """
    What is served. Making one checks that every patch lands in the workflow.

    Raises:
        WorkflowMismatch: naming the title or input that is missing or double.
    """

    request: type[Request]
    folder: Path
    title: str
    kind: str  #: "video" or "image": what comes out
    output: str  #: title of the node whose file is the result
    memory: Memory | None = None  #: what it takes on the card, where that is known
    name: str = ""  #: how people call it; the folder's name, unless it serves another's
    aliases: tuple[str, ...] = ()  #: other paths of POST /generate, such as "/edit"
    comfyui: bool = True  #: False: its nodes are those of our own engine alone
    min_comfyui: str = "0.3.64"  #: the first release known to have all of its nodes
    workflow: Workflow = field(init=False)  #: the main one
    workflows: dict[Variant | None, Workflow] = field(init=False)

    def __post_init__(self) -> None:
        workflows = {one: self._load(one) for one in (None, *self.request.variants)}
        object.__setattr__(self, "workflow", workflows[None])
        object.__setattr__(self, "workflows", workflows)
        object.__setattr__(self, "name", self.name or self.folder.name)

    def _load(self, variant: Variant | None) -> Workflow:
        workflow = Workflow.load(self.folder / (variant.file if variant else WORKFLOW))
        self.request.check(workflow, variant)
        workflow.inputs(self.output, "filename_prefix")
        return workflow

    def apply(self, request: Request) -> Workflow:
        """Return the workflow that serves a request, with its fields in place."""
        return request.apply(self.workflows[request.variant()])

    @cached_property
    def modes(self) -> tuple[Mode, ...]:
        """The kinds of request that it takes, and the weights that each loads."""
        return modes(self)


def load(folder: Path) -> Service:
    """Return the service that a folder's wrapper declares."""
    name = f"wan_service_{folder.name}".replace("-", "_").replace(".", "_")
    spec = importlib.util.spec_from_file_location(name, folder / WRAPPER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks annotations up in the module
    spec.loader.exec_module(module)
    service = module.service
    assert isinstance(service, Service)
    return service


def folders(root: Path | None = None) -> list[Path]:
    """Return the folders that hold a wrapper, by name."""
    root = root or Path(__file__).parent.parent
    return sorted(path.parent for path in root.glob(f"*/{WRAPPER}"))


def find(name: str, root: Path | None = None) -> Path:
    """
    Return the folder of a service by its name or a unique prefix of it.

    Raises:
        NoSuchService: naming those that there are.
    """
    there = folders(root)
    exact = [path for path in there if path.name == name]
    found = exact or [path for path in there if path.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in (found or there))
    problem = "fits several services" if found else "is not a service"
    raise NoSuchService(f"{name!r} {problem}: {names}")

"""One engine: its queue, its worker, its sockets, its folders."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from common.engine.definitions import Library
from common.engine.execute import Executor
from common.engine.faults import Faults
from common.engine.files import KINDS
from common.engine.nodes import NODES
from common.engine.prompt import Workshop
from common.engine.promptqueue import PromptQueue
from common.engine.settings import EngineSettings
from common.engine.sockets import Sockets
from common.engine.voice import Voice

#: How long the worker may take to notice that the engine closes.
CLOSE_S = 10.0


class Engine:
    """
    The parts of an engine, wired.

    Made inside a running event loop; `start` and `close` frame its life.
    """

    def __init__(self, settings: EngineSettings) -> None:
        for kind in KINDS:
            settings.folder(kind).mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.url = ""  #: set when it listens
        self.faults = Faults()
        self.library = Library(settings)
        self.sockets = Sockets(self.faults)
        self.queue = PromptQueue(self._tell_status)
        self._voice = Voice(self.faults, self.sockets.post)
        shop = Workshop(settings, self.library, self.faults, NODES, self._voice)
        self.executor = Executor(self.queue, shop)
        self._number = 0

    def start(self) -> None:
        """Start the worker."""
        self.executor.start()

    def close(self) -> None:
        """Cut every socket, drop every prompt, end the worker."""
        self.sockets.cut_all()
        self.queue.close()
        self.executor.join(CLOSE_S)

    def next_number(self, given: Any, *, front: bool) -> float:
        """Return a prompt's place in the order: as given, or after or before all."""
        number: float = self._number if given is None else float(given)
        if given is None and front:
            number = -number
        self._number += 1
        return number

    def exec_info(self) -> dict[str, Any]:
        """Return what `status` and GET /prompt say."""
        return {"exec_info": {"queue_remaining": self.queue.remaining()}}

    def hello(self, sid: str) -> list[str]:
        """Return what a new socket is told first."""
        frames = [{"type": "status", "data": {"status": self.exec_info(), "sid": sid}}]
        client_id, node_id = self._voice.at
        if client_id == sid and node_id is not None:
            frames.append({"type": "executing", "data": {"node": node_id}})
        return [json.dumps(frame) for frame in frames]

    def _tell_status(self) -> None:
        self._voice.tell_all(self.exec_info())


ENGINE = web.AppKey("engine", Engine)  #: where a request finds its engine

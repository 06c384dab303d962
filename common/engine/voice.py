"""What is said about a prompt, and to whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from common.engine.faults import Faults
from common.engine.promptqueue import Item
from common.engine.sockets import Preview

#: Frames that everybody gets when a prompt has no client. Source: recorded.
PUBLIC = frozenset({"progress", "progress_state", "execution_interrupted"})


class Voice:
    """Sends frames about prompts to their clients, unless a test wants them lost."""

    def __init__(
        self, faults: Faults, post: Callable[[str | Preview, str | None], None]
    ) -> None:
        self._faults = faults
        self._post = post
        #: client and node of what runs: a socket that joins late is told the node
        self.at: tuple[str | None, str | None] = (None, None)

    def say(self, item: Item, kind: str, data: dict[str, Any]) -> None:
        """Send a frame to the client of a prompt."""
        if item.forgotten or (item.client_id is None and kind not in PUBLIC):
            return
        end = kind == "executing" and data["node"] is None
        if not self._dropped("executing_null" if end else kind):
            self._post(json.dumps({"type": kind, "data": data}), item.client_id)

    def show(self, item: Item, jpeg: bytes, about: dict[str, Any] | None) -> None:
        """Send a preview to the client of a prompt."""
        if not item.forgotten and not self._dropped("preview"):
            self._post(Preview(jpeg, about), item.client_id)

    def tell_all(self, status: dict[str, Any]) -> None:
        """Tell everybody how long the queue is."""
        if not self._dropped("status"):
            frame = {"type": "status", "data": {"status": status}}
            self._post(json.dumps(frame), None)

    def _dropped(self, kind: str) -> bool:
        unwanted = self._faults.take("drop_frames")
        return unwanted is not None and (unwanted == "all" or kind in unwanted)

"""
Things that a test may break on purpose; only an engine started with faults has any.

`POST /embedded/faults` takes an object of them. Each stays until `{"reset": true}`, or
works `times` times when the object says so. A "node" is an id or a class.
"""

from __future__ import annotations

import threading
from typing import Any

#: What can be broken, and what it is set to.
FAULTS = {
    "hang_at_node": "node: it never ends, unless interrupted",
    "crash_at_node": "node: the process dies with status 137",
    "error_at_node": 'node, or {"node", "type", "message"}: it raises',
    "oom_at_node": "node: it raises what CUDA raises when memory is out",
    "ignore_interrupt": "true: POST /interrupt answers 200 and does nothing",
    "half_file": "true: a saved film is cut in the middle",
    "no_file": "true: a saved film is reported and not there",
    "no_outputs": "true: outputs are neither announced nor in the history",
    "node_errors_200": "true: POST /prompt answers 200 and node_errors, and runs it",
    "delay_history_s": "seconds between the end of a run and its history entry",
    "zombie": "true: prompts are accepted and never start",
    "forget_prompt": "true, at once: queue and history are empty, what ran is gone",
    "drop_frames": '"all", or names of frames, also "preview" and "executing_null"',
    "mute_socket": "true: nothing is sent on any socket",
    "close_sockets": "true, at once: every socket is cut",
    "deaf_after_reconnect": "true: a client's second socket goes deaf with the first",
    "slow_reader_stalls": "true: a client that does not read stops the frames of all",
}


class Faults:
    """The faults that are on. Threads may ask at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on: dict[str, Any] = {}
        self._left: dict[str, int] = {}

    def set(self, wanted: dict[str, Any]) -> None:
        """
        Switch faults on, and with "reset" all others off.

        Raises:
            ValueError: a name that is not a fault.
        """
        wanted = dict(wanted)
        times = wanted.pop("times", None)
        reset = wanted.pop("reset", False)
        if unknown := wanted.keys() - FAULTS.keys():
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        with self._lock:
            if reset:
                self._on.clear()
                self._left.clear()
            self._on.update(wanted)
            if times is not None:
                self._left.update(dict.fromkeys(wanted, times))

    def take(self, name: str, *places: str) -> Any:
        """Return a fault's value, None if it is off; counts as one of its `times`."""
        if name not in self._on:
            return None  # the common case, without the lock
        with self._lock:
            value = self._on.get(name)
            place = value.get("node") if isinstance(value, dict) else value
            if not value or (places and place not in places):
                return None
            if name in self._left:
                self._left[name] -= 1
                if self._left[name] <= 0:
                    del self._on[name], self._left[name]
            return value

"""The worker: one thread that runs one prompt after the other."""

from __future__ import annotations

import logging
import threading

from common.engine.prompt import PromptRun, Workshop
from common.engine.promptqueue import Entry, PromptQueue

logger = logging.getLogger(__name__)


class Executor:
    """Runs prompts until the queue closes."""

    def __init__(self, queue: PromptQueue, shop: Workshop) -> None:
        self._queue = queue
        self._shop = shop
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self.forget_cache = threading.Event()  #: POST /free: compute everything anew

    def start(self) -> None:
        """Begin to take prompts."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end, after the queue was closed."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        voice = self._shop.voice
        while (item := self._queue.take()) is not None:
            if self.forget_cache.is_set():
                self.forget_cache.clear()
                self._shop.cache.clear()
            try:
                entry = PromptRun(self._shop, item).run()
            except Exception:
                # The top of the thread: a bug ends one prompt, not the engine.
                logger.exception("prompt %s", item.prompt_id)
                item.state, entry = "error", Entry(item, {}, {}, [])
            # History first: who hears of the end finds the entry.
            self._queue.done(None if item.forgotten else entry)
            voice.at = (item.client_id, None)
            if item.client_id is not None:
                end = {"node": None, "prompt_id": item.prompt_id}
                voice.say(item, "executing", end)

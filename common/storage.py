"""How many bytes the weights take, for Prometheus: counted in a thread, and seldom."""

from __future__ import annotations

import asyncio
import logging
import math

from common.models.layers import Layers
from common.models.usage import usage

log = logging.getLogger(__name__)

# Counting walks every folder of the volume, which may be far away.
EVERY_S = 60.0


class Storage:
    """The bytes of all layers, counted again when somebody asked since."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._bytes = math.nan
        self._asked = asyncio.Event()
        self._asked.set()  # the first who asks finds a figure

    def bytes(self) -> float:
        """Return the last count; NaN before there is one."""
        self._asked.set()
        return self._bytes

    async def work(self) -> None:
        """Count, for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                found = await asyncio.to_thread(usage, self._layers, {})
                self._bytes = found.bytes
            except OSError as error:
                log.warning("the weights' volume cannot be counted: %s", error)
            await asyncio.sleep(EVERY_S)

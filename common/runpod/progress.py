"""
Progress for `GET /status`: posted and waited for, so that it never follows the result.

The SDK's own `progress_update` starts a thread that nobody waits for: an update that
comes last turns a finished job back into one that runs.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

log = logging.getLogger(__name__)

POST_S = 10.0  #: a platform that is slow to listen holds up an update, not the job


class Report(Protocol):
    """Tells the platform how far a job is."""

    async def __call__(self, delivery: dict[str, Any], told: dict[str, Any]) -> None:
        """Return when the platform has it, or cannot be told."""


async def to_platform(delivery: dict[str, Any], told: dict[str, Any]) -> None:
    """Post a job as it stands, by the way that the SDK posts progress."""
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules.rp_http import send_result

    update = {"status": "IN_PROGRESS", "output": told}
    try:
        async with asyncio.timeout(POST_S), AsyncClientSession() as session:
            await send_result(session, update, delivery)
    except TimeoutError:
        log.warning("the platform did not take an update within %.0f s", POST_S)


async def to_nobody(delivery: dict[str, Any], told: dict[str, Any]) -> None:
    """Say nothing: the SDK's local API has no place for progress."""

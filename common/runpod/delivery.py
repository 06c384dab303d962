"""How finished files leave the worker: by a link into a bucket, or inline if small."""

from __future__ import annotations

import asyncio
import base64
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ServiceError
from common.job import Job
from common.runpod.buckets import Bucket, NotUploaded

log = logging.getLogger(__name__)

# Of all files of one job together; base64 makes 9.3 MB of it. Source: RunPod takes
# results of about 10 MB.
INLINE_BYTES = 7_000_000


class NotDelivered(ServiceError):
    """The clip is made, and there is no way to hand it over."""

    code = "not_delivered"
    title = "Output not delivered"


@dataclass
class Delivered:
    """The outputs as the caller is told them."""

    outputs: list[dict[str, Any]]  #: small; with a "url" where there is a bucket
    inline: list[str]  #: base64 of each, where there is none


async def deliver(
    job: Job, told: list[dict[str, Any]], folder: Path, bucket: Bucket | None
) -> Delivered:
    """
    Upload the outputs of a job, or read them where no bucket takes them.

    Args:
        told: the outputs as callers of the HTTP service see them.
        folder: where their files lie.

    Raises:
        NotDelivered: too large to be inline, and no bucket, or one that refuses.
    """
    local = ("url", "poster_url")  # links into an HTTP service that is not there
    plain = [{k: v for k, v in one.items() if k not in local} for one in told]
    why = "no bucket is set"
    if bucket is not None:
        try:
            for one, output in zip(plain, job.outputs, strict=True):
                key = f"{job.service}/{job.id}/{output.name}"
                one["url"] = await bucket.put(
                    folder / output.name, key, output.content_type
                )
            return Delivered(plain, [])
        except NotUploaded as error:
            why = str(error)
            log.warning("%s: %s", job.id, why)
    size = sum(output.size_bytes for output in job.outputs)
    if size > INLINE_BYTES:
        raise NotDelivered(
            f"the output of {size / 1e6:.1f} MB is too large for a reply, and {why}:"
            " set BUCKET_ENDPOINT_URL, BUCKET_ACCESS_KEY_ID, BUCKET_SECRET_ACCESS_KEY"
            " and BUCKET_NAME at the endpoint, or send s3Config"
        )
    for one in plain:
        one.pop("url", None)
        if bucket is not None:
            one["warning"] = f"inline, since {why}"
    files = [folder / output.name for output in job.outputs]
    return Delivered(plain, [await asyncio.to_thread(_base64, one) for one in files])


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")

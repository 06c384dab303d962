"""
Where big outputs go: an S3 bucket, by the operator's environment or by the request.

The link that comes back is signed and needs no credentials. The caller's own bucket is
only used for their own job, and never named in a log.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from common.errors import InvalidInput
from common.inputs.fetch import system_resolve
from common.inputs.guard import Refused, allow_list, check_url, is_public
from common.runpod.settings import RunPod

if TYPE_CHECKING:
    from obstore.store import S3Store

LINK_LIFE_S = 604_800  #: the longest that S3 signs for. Source: SigV4, X-Amz-Expires
UPLOAD_S = 300.0  #: for one file, all tries together

# Source: the names of the fields are those of RunPod's worker-comfyui.
_CONFIG = ("endpointUrl", "accessId", "accessSecret", "bucketName")
_REGION = re.compile(
    r"(?:^|\.)s3(?:api)?[.-](?P<aws>[a-z]{2,}-[a-z0-9-]+)\."
    r"|^(?:.+\.)?(?P<ocean>[a-z]{3}\d)\.digitaloceanspaces\.com$"
)


class NotUploaded(Exception):
    """The bucket did not take a file; the message is for people, without secrets."""


@dataclass(frozen=True)
class Bucket:
    """A bucket and the right to write into it."""

    endpoint: str
    name: str
    key_id: str = field(repr=False)
    secret: str = field(repr=False)

    @classmethod
    def of_environment(cls, env: RunPod) -> Bucket | None:
        """Return the operator's bucket; the name defaults to the SDK's, month-year."""
        key_id, secret = env.bucket_access_key_id, env.bucket_secret_access_key
        if not (env.bucket_endpoint_url and key_id and secret):
            return None
        return cls(
            env.bucket_endpoint_url,
            env.bucket_name or datetime.now(UTC).strftime("%m-%y"),
            key_id.get_secret_value(),
            secret.get_secret_value(),
        )

    @classmethod
    async def of_request(cls, config: object, allow_hosts: frozenset[str]) -> Bucket:
        """
        Return the bucket that a request brings along.

        Its address is a stranger's, so it must be public, or among `allow_hosts`.

        Raises:
            InvalidInput: naming the part of `s3Config`.
        """
        if not isinstance(config, dict):
            raise InvalidInput.of("s3Config", "must be an object")
        for name in _CONFIG:
            if not isinstance(config.get(name), str) or not config[name]:
                raise InvalidInput.of(f"s3Config.{name}", "must be a text")
        try:
            target = check_url(config["endpointUrl"], allow_list(allow_hosts))
            addresses = await _addresses(target.host, target.port)
            if not (target.exempt or (addresses and all(map(is_public, addresses)))):
                raise Refused("the URL's host is not on the public internet")  # noqa: TRY301
        except Refused as error:
            raise InvalidInput.of("s3Config.endpointUrl", str(error)) from None
        return cls(
            config["endpointUrl"],
            config["bucketName"],
            config["accessId"],
            config["accessSecret"],
        )

    async def put(self, path: Path, key: str, content_type: str) -> str:
        """
        Upload a file, in parts when it is large, and return a signed link to it.

        Raises:
            NotUploaded: saying whether it was the credentials, the bucket or the way.
        """
        import obstore
        from obstore.exceptions import BaseError

        try:
            store = self._store()
            async with asyncio.timeout(UPLOAD_S):
                attributes: Any = {"Content-Type": content_type}
                await obstore.put_async(store, key, path, attributes=attributes)
            return await obstore.sign_async(
                store, "GET", key, timedelta(seconds=LINK_LIFE_S)
            )
        except TimeoutError:
            raise NotUploaded(f"the bucket took over {UPLOAD_S:.0f} s") from None
        except (BaseError, ValueError, OSError) as error:
            raise NotUploaded(_reason(error)) from None

    def _store(self) -> S3Store:
        from obstore.store import S3Store

        return S3Store(
            self.name,
            endpoint=self.endpoint.rstrip("/"),
            access_key_id=self.key_id,
            secret_access_key=self.secret,
            region=region(self.endpoint),
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "connect_timeout": "10s"},
            retry_config={
                "max_retries": 4,
                "retry_timeout": timedelta(seconds=60),
            },
        )


def region(endpoint: str) -> str:
    """
    Return the region that a bucket's address names.

    >>> region("https://s3.eu-west-1.amazonaws.com")
    'eu-west-1'
    >>> region("https://fra1.digitaloceanspaces.com")
    'fra1'
    >>> region("http://127.0.0.1:9000")
    'us-east-1'
    """
    found = _REGION.search(urlsplit(endpoint).hostname or "")
    return (found and (found["aws"] or found["ocean"])) or "us-east-1"


async def _addresses(host: str, port: int) -> list[str]:
    try:
        return await system_resolve(host, port)
    except (OSError, UnicodeError):
        return []


def _reason(error: Exception) -> str:
    """Say what kind of refusal it was; the full text may quote keys and addresses."""
    kind = type(error).__name__
    status = re.search(r"\b[45]\d\d (?=[A-Z])", str(error))
    said = status[0].strip() if status else ""
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or said in (
        "401",
        "403",
    ):
        return "the bucket refuses the credentials"
    if kind == "NotFoundError" or said == "404":
        return "there is no such bucket"
    return f"the bucket failed ({said or kind})"

"""An S3 bucket, or one of MinIO, R2 and others: its objects' signed URLs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from common.models.errors import AuthNeeded
from common.models.sources.address import Address, NotThere, SourceTrouble
from common.source_urls import S3Url

if TYPE_CHECKING:
    from obstore.store import S3Store

#: How long a signed URL works. It is made again when it is over, and one that gets out
#: is of use for no longer.
LIFE = timedelta(hours=1)
REGION = "us-east-1"  #: what S3 takes where no region is set
KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may read the bucket,"
    " or WAN_MODELS_S3_PUBLIC if everybody may"
)


@dataclass(frozen=True)
class S3Access:
    """How buckets are reached; the fields are AWS's own environment variables."""

    endpoint: str | None = None  #: AWS_ENDPOINT_URL; None = Amazon's own
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    #: The bucket in the path, not in the host's name; None = yes at an endpoint of its
    #: own, no at Amazon.
    path_style: bool | None = None
    public: bool = False  #: nothing is signed

    @property
    def in_path(self) -> bool:
        """Whether the bucket is in the path."""
        if self.path_style is not None:
            return self.path_style
        return self.endpoint is not None


@dataclass(frozen=True)
class S3Source:
    """One object."""

    label: str
    url: S3Url
    access: S3Access
    timeout_s: float

    def resolve(self) -> Address:
        """
        Ask for the size, and sign a URL.

        Raises:
            NotThere: no such bucket or object.
            AuthNeeded: the credentials are absent or refused.
            SourceTrouble: no answer, or one of trouble.
        """
        import obstore
        from obstore.exceptions import (
            BaseError,
            PermissionDeniedError,
            UnauthenticatedError,
        )

        try:
            store = self.store()
            size = obstore.head(store, self.url.key)["size"]
            now = time.time()
            if self.access.public:
                return Address(self._plain(), size=size)
            signed = obstore.sign(store, "GET", self.url.key, LIFE)
        except (PermissionDeniedError, UnauthenticatedError):
            raise AuthNeeded(f"{self.label}: the bucket refuses us", KEYS) from None
        except FileNotFoundError:
            raise NotThere(f"{self.label} is not there") from None
        except BaseError as error:  # its text repeats requests and their headers
            if self.access.access_key_id is None and not self.access.public:
                raise AuthNeeded(
                    f"{self.label}: no key is set, and this machine has none", KEYS
                ) from None
            words = f"{self.label} does not answer ({type(error).__name__})"
            hint = "is AWS_ENDPOINT_URL right, and reachable from here?"
            raise SourceTrouble(words, hint) from None
        return Address(signed, size=size, expires_at=now + LIFE.total_seconds())

    def store(self) -> S3Store:
        """Return the bucket, as obstore knows it."""
        from obstore.store import S3Store

        access = self.access
        given: dict[str, Any] = {
            "endpoint": self._endpoint() if access.endpoint else None,
            "access_key_id": access.access_key_id,
            "secret_access_key": access.secret_access_key,
            "session_token": access.session_token,
        }
        return S3Store(
            self.url.bucket,
            region=access.region or REGION,
            virtual_hosted_style_request=not access.in_path,
            skip_signature=access.public,
            client_options={
                "allow_http": True,
                "timeout": timedelta(seconds=self.timeout_s),
            },
            retry_config={
                "max_retries": 2,
                "retry_timeout": timedelta(seconds=self.timeout_s),
            },
            **{name: value for name, value in given.items() if value is not None},
        )

    def _endpoint(self) -> str:
        """Return where the bucket is, with its name in the host's if it is there."""
        access = self.access
        if access.endpoint is None:
            region = access.region or REGION
            base = f"https://s3.{region}.amazonaws.com"
        else:
            base = access.endpoint.rstrip("/")
        if access.in_path:
            return base
        parts = urlsplit(base)
        return f"{parts.scheme}://{self.url.bucket}.{parts.netloc}{parts.path}"

    def _plain(self) -> str:
        """Return the URL of an object that everybody may read."""
        bucket = f"/{self.url.bucket}" if self.access.in_path else ""
        return f"{self._endpoint()}{bucket}/{quote(self.url.key)}"

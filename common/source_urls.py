"""
Where a weight file comes from: the URLs that the manifest writes, taken apart.

Pure. There are four kinds, tried in the order in which they are written:

* local:///folder/file or local://file   on this machine, or below a configured folder
* s3://bucket/key                        an S3 or MinIO bucket
* hf://ORG/REPO@REVISION/path            a Hugging Face repository
* https://host/path                      a plain server
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

_HUB = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?/(?P<path>.+)"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")
#: Parts of a query that are keys to a door, or the marks of a signed URL.
_SECRET = re.compile(r"token|secret|password|signature|credential|api.?key|^sig$", re.I)
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class LocalUrl:
    """A file of this machine; relative paths are below a folder that is configured."""

    path: str


@dataclass(frozen=True)
class S3Url:
    """An object of a bucket."""

    bucket: str
    key: str


@dataclass(frozen=True)
class HubUrl:
    """A file of a Hugging Face repository."""

    repo: str  #: "ORG/NAME"
    revision: str
    path: str

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True)
class HttpUrl:
    """A file of a plain server."""

    url: str

    @property
    def private(self) -> bool:
        """Whether nobody on the way can change what it answers."""
        parts = urlsplit(self.url)
        return parts.scheme == "https" or parts.hostname in _LOOPBACK


SourceUrl = LocalUrl | S3Url | HubUrl | HttpUrl


def parse(url: str) -> SourceUrl:
    """
    Return what a source's URL means.

    Raises:
        ValueError: saying what is wrong, without the part that may be a secret.
    """
    scheme, mark, rest = url.partition("://")
    if not mark or not rest:
        raise ValueError("is no URL; write local://, s3://, hf:// or https://")
    match scheme:
        case "local":
            return LocalUrl(_path(rest))
        case "s3":
            return _s3(rest)
        case "hf":
            return _hub(url)
        case "https" | "http":
            return _http(url)
    raise ValueError("has an unknown scheme; there are local, s3, hf and https")


def _path(text: str) -> str:
    if ".." in PurePosixPath(text.replace("\\", "/")).parts:
        raise ValueError("has a `..` in its path")
    return text


def _s3(rest: str) -> S3Url:
    bucket, _, key = rest.partition("/")
    if _BUCKET.fullmatch(bucket) is None:
        raise ValueError("names no bucket; write s3://bucket/key, without credentials")
    if not key.strip("/"):
        raise ValueError("names no key; write s3://bucket/key")
    return S3Url(bucket, _path(key))


def _hub(url: str) -> HubUrl:
    found = _HUB.fullmatch(url)
    if found is None:
        raise ValueError("is not hf://ORG/REPO@REVISION/path")
    if found["revision"] is None:
        raise ValueError("names no revision; write hf://ORG/REPO@COMMIT/path")
    return HubUrl(found["repo"], found["revision"], _path(found["path"]))


def _http(url: str) -> HttpUrl:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("has credentials in it; set them in the environment")
    if any(_SECRET.search(name) for name, _ in parse_qsl(parts.query)):
        raise ValueError("has a secret in its query; a manifest is read by everyone")
    if not parts.hostname or not parts.path.strip("/"):
        raise ValueError("names no host or no file")
    _path(unquote(parts.path))
    return HttpUrl(url)

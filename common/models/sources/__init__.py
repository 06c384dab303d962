"""Sources: the places that may have a file, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.manifest_schema import WeightFile
from common.models.sources.address import Address, NotThere, Source, SourceTrouble
from common.models.sources.hf_cache import HubCache
from common.models.sources.https import HttpSource
from common.models.sources.hub import HubSource
from common.models.sources.local import LocalSource
from common.models.sources.s3 import S3Access, S3Source
from common.source_urls import HttpUrl, HubUrl, LocalUrl, S3Url, SourceUrl, parse

__all__ = [
    "Address",
    "NotThere",
    "S3Access",
    "Source",
    "SourceConfig",
    "SourceTrouble",
    "mirror_path",
    "sources_of",
]

#: The Hub itself; a mirror of it may be configured.
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class SourceConfig:
    """What an operator says about sources; `common.models.config` reads it."""

    #: A copy of our own: s3://bucket/prefix, local:///folder or https://host/prefix. It
    #: is asked first, for blobs/sha256/ab/<sha256>.
    mirror: str | None = None
    local_root: Path | None = None  #: what relative local:// paths are below
    #: Folders such as /runpod-volume/huggingface-cache/hub and HF_HUB_CACHE.
    hf_caches: tuple[Path, ...] = ()
    hf_endpoint: str = HUB
    hf_token: str | None = field(default=None, repr=False)
    s3: S3Access = field(default_factory=S3Access)
    #: Headers by host, such as {"models.example.com": {"Authorization": "Bearer …"}}.
    host_headers: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict, repr=False
    )
    offline: bool = False  #: only what is on this machine
    timeout_s: float = 10.0  #: for an answer to a question about a file

    def __post_init__(self) -> None:
        """
        Check the mirror.

        Raises:
            ValueError: saying what is wrong with it, and not what it is.
        """
        if self.mirror is None:
            return
        if self.mirror.startswith("hf:") or "://" not in self.mirror:
            raise ValueError("is not s3://, local:// or https://")
        _mirrored(self.mirror)


def sources_of(
    file: WeightFile, config: SourceConfig, sha256: str | None = None
) -> list[Source]:
    """
    Return who is asked for a file, in order. Nobody is asked anything yet.

    Args:
        file: of the manifest.
        config: what the operator says.
        sha256: what the lock says, where the manifest says none: mirrors and the Hub's
            caches find a file by it.
    """
    sha256 = file.sha256 or sha256
    found: list[Source] = []
    if config.mirror is not None and sha256 is not None:
        found += _one(f"{config.mirror.rstrip('/')}/{mirror_path(sha256)}", config)
    for source in file.sources:
        found += _one(source, config, sha256)
    return found


def mirror_path(sha256: str) -> str:
    """Return where a mirror has a file; layers have it at the same place."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def _mirrored(mirror: str) -> SourceUrl:
    return parse(f"{mirror.rstrip('/')}/blobs")


def _one(
    source: str, config: SourceConfig, sha256: str | None = None
) -> Iterator[Source]:
    url = parse(source)
    if isinstance(url, LocalUrl):
        yield LocalSource(source, url, config.local_root)
        return
    if isinstance(url, HubUrl):
        for cache in config.hf_caches:
            yield HubCache(source, url, cache, sha256)
    if config.offline:
        return
    match url:
        case HubUrl():
            yield HubSource(
                source, url, config.hf_endpoint, config.hf_token, config.timeout_s
            )
        case S3Url():
            yield S3Source(source, url, config.s3, config.timeout_s)
        case HttpUrl():
            yield HttpSource(source, url, config.host_headers, config.timeout_s)

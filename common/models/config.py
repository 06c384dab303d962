"""What the settings say about weights, as the orchestrator takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from common.models.layer import Mode
from common.models.sources import S3Access, SourceConfig
from common.settings import BadSettings, Settings

#: Where RunPod puts the one repository that an endpoint has cached. Source:
#: docs.runpod.io/serverless/endpoints/model-caching.
PLATFORM_CACHES = (Path("/runpod-volume/huggingface-cache/hub"),)


@dataclass(frozen=True)
class Config:
    """Where the manifest, the layers and the sources are."""

    manifest: Path
    roots: tuple[Path, ...]  #: lowest first; the last is written
    #: models.lock: beside the manifest, and of each root; the last is written
    locks: tuple[Path, ...]
    sources: SourceConfig
    margin: int  #: bytes to leave free
    aria2: bool = False  #: use it where it suits and is there
    disk: Path | None = None  #: files come there first
    mode: Mode | None = None  #: None = what suits the volume
    mtime_s: int | None = None  #: for images: what every file is dated

    @classmethod
    def of(cls, settings: Settings) -> Config:
        """
        Return what the settings say.

        Raises:
            BadSettings: an address cannot be used.
        """
        if urlsplit(settings.hf_endpoint).scheme not in ("http", "https"):
            raise BadSettings("HF_ENDPOINT: is no URL; write https://host")
        roots = _roots(settings)
        try:
            sources = _sources(settings)
        except ValueError as error:
            raise BadSettings(f"WAN_MODELS_MIRROR: {error}") from None
        return cls(
            settings.models_manifest,
            roots,
            (
                settings.models_manifest.with_name("models.lock"),
                *(root / "models.lock" for root in roots),
            ),
            sources,
            int(settings.models_margin_gb * 1e9),
            settings.enable_fast_download,
            settings.models_staging,
        )


def _roots(settings: Settings) -> tuple[Path, ...]:
    """
    Return where weights are, lowest first.

    What lies in the folder of a ComfyUI is found by it, and need not be fetched again
    into a root that is named beside it.
    """
    own, root = settings.comfyui_dir, settings.weights_root
    if own is None or settings.engine_kind != "comfyui":
        return (*settings.models_layers, root)
    roots = (*settings.models_layers, own.absolute(), root)
    # A folder that is named twice counts where ComfyUI looks first.
    places = {path.resolve(): path for path in reversed(roots)}
    return tuple(reversed(places.values()))


def _sources(settings: Settings) -> SourceConfig:
    own: tuple[Path, ...] = ()
    if settings.hf_cache is not None:
        own = (settings.hf_cache,)
    elif settings.hf_home is not None:
        own = (settings.hf_home / "hub",)
    return SourceConfig(
        mirror=settings.models_mirror,
        local_root=settings.models_local or settings.weights_root,
        host_headers={
            host: {name: value.get_secret_value() for name, value in headers.items()}
            for host, headers in settings.models_headers.items()
        },
        hf_caches=tuple(path for path in (*PLATFORM_CACHES, *own) if path.is_dir()),
        hf_endpoint=settings.hf_endpoint,
        hf_token=settings.hub_token,
        s3=S3Access(
            endpoint=settings.aws_endpoint_url,
            region=settings.aws_region,
            access_key_id=_plain(settings.aws_access_key_id),
            secret_access_key=_plain(settings.aws_secret_access_key),
            session_token=_plain(settings.aws_session_token),
            public=settings.models_s3_public,
        ),
        offline=settings.hf_offline,
    )


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()

"""What the settings say about weights, as the orchestrator takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    locks: tuple[Path, ...]  #: models.lock: beside the manifest, and the volume's own
    sources: SourceConfig
    margin: int  #: bytes to leave free
    aria2: bool = False  #: use it where it suits and is there
    mode: Mode | None = None  #: None = what suits the volume
    mtime_s: int | None = None  #: for images: what every file is dated

    @classmethod
    def of(cls, settings: Settings) -> Config:
        """
        Return what the settings say.

        Raises:
            BadSettings: the mirror's address cannot be used.
        """
        roots = (*settings.models_layers, settings.weights_root)
        try:
            sources = _sources(settings)
        except ValueError as error:
            raise BadSettings(f"WAN_MODELS_MIRROR: {error}") from None
        return cls(
            settings.models_manifest,
            roots,
            (
                settings.models_manifest.with_name("models.lock"),
                roots[-1] / "models.lock",
            ),
            sources,
            int(settings.models_margin_gb * 1e9),
            settings.enable_fast_download,
        )


def _sources(settings: Settings) -> SourceConfig:
    own = () if settings.hf_cache is None else (settings.hf_cache,)
    return SourceConfig(
        mirror=settings.models_mirror,
        local_root=settings.weights_root,
        hf_caches=(*PLATFORM_CACHES, *own),
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

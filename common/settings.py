"""
What the environment says, read once at start; no other file looks at it.

A nonsense value stops the start with the setting's name and what it may be.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Names = Annotated[tuple[str, ...], NoDecode]


class BadSettings(Exception):
    """The environment holds a value that we do not take; the message names it."""


class Settings(BaseSettings):
    """Everything an operator can set; API.md of the docs lists the same names."""

    model_config = SettingsConfigDict(
        env_prefix="WAN_",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        env_ignore_empty=True,  # .env files pass on what was left blank
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8189, ge=0, le=65535)
    data: Path | None = None  #: default: ./data/<service>

    engine: Literal["embedded", "comfyui", "nunchaku"] | None = None
    models: Path | None = Field(  #: root of the weights; see `weights_root`
        default=None,
        validation_alias=AliasChoices("models", "MODELS_ROOT", "WAN_MODELS"),
    )
    models_layers: Annotated[tuple[Path, ...], NoDecode] = ()  #: read, never written
    comfyui_url: str | None = Field(
        default=None, validation_alias=AliasChoices("comfyui_url", "COMFYUI_URL")
    )
    comfyui_urls: Names = Field(
        default=(), validation_alias=AliasChoices("comfyui_urls", "COMFYUI_URLS")
    )
    comfyui_dir: Path | None = Field(
        default=None, validation_alias=AliasChoices("comfyui_dir", "COMFYUI_DIR")
    )
    comfyui_cmd: str | None = Field(
        default=None, validation_alias=AliasChoices("comfyui_cmd", "COMFYUI_CMD")
    )
    comfy_launch_args: str = Field(
        default="",
        validation_alias=AliasChoices("comfy_launch_args", "COMFY_LAUNCH_ARGS"),
    )
    engine_port: int = Field(default=8188, ge=0, le=65535)
    engine_speed: float = Field(default=1.0, ge=0)

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    api_keys_file: Path | None = None
    database_url: SecretStr | None = None
    models_manifest: Path = Field(
        default=Path(__file__).parent.parent / "models.toml",
        validation_alias=AliasChoices("models_manifest", "WAN_MODELS_MANIFEST"),
    )
    models_ensure: bool | None = None  #: fetch what jobs lack; see `supplies`
    models_mirror: str | None = None  #: a copy of our own, asked before the publishers
    models_staging: Path | None = None  #: a disk that files come to before the volume
    models_margin_gb: float = Field(default=2.0, ge=0)  #: left free on the volume
    enable_fast_download: bool = Field(
        default=False,
        validation_alias=AliasChoices("enable_fast_download", "ENABLE_FAST_DOWNLOAD"),
    )
    hf_token: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices(
            "hf_token", "HUGGINGFACE_ACCESS_TOKEN", "HF_TOKEN"
        ),
    )
    hf_token_file: Path | None = None  #: of a secret mount
    hf_endpoint: str = Field(
        default="https://huggingface.co",
        validation_alias=AliasChoices("hf_endpoint", "HF_ENDPOINT"),
    )
    hf_offline: bool = Field(
        default=False, validation_alias=AliasChoices("hf_offline", "HF_HUB_OFFLINE")
    )
    hf_cache: Path | None = Field(
        default=None, validation_alias=AliasChoices("hf_cache", "HF_HUB_CACHE")
    )
    hf_home: Path | None = Field(  #: its cache is in "hub" where none is named
        default=None, validation_alias=AliasChoices("hf_home", "HF_HOME")
    )

    models_local: Path | None = None  #: what relative local:// sources are below
    #: Headers by host, as JSON: {"models.example.com": {"Authorization": "Bearer …"}}
    models_headers: Annotated[dict[str, dict[str, SecretStr]], NoDecode] = Field(
        default_factory=dict
    )
    models_s3_public: bool = False  #: the buckets take unsigned requests
    aws_endpoint_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("aws_endpoint_url", "AWS_ENDPOINT_URL"),
    )
    aws_region: str | None = Field(
        default=None,
        validation_alias=AliasChoices("aws_region", "AWS_DEFAULT_REGION", "AWS_REGION"),
    )
    aws_access_key_id: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
    )
    aws_secret_access_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    )
    aws_session_token: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("aws_session_token", "AWS_SESSION_TOKEN"),
    )

    queue_limit: int = Field(default=100, ge=1)
    job_timeout_s: float = Field(default=1800, gt=0)
    stall_load_s: float = Field(default=900, gt=0)
    stall_step_s: float = Field(default=120, gt=0)
    stall_decode_s: float = Field(default=300, gt=0)
    max_attempts: int = Field(default=3, ge=1, le=10)
    retention_hours: float = Field(default=168, ge=0)
    max_upload_mb: int = Field(default=50, ge=1)
    input_allow_hosts: Names = ()
    allowed_hosts: Names = ()
    cors_origins: Names = ()
    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    drain_s: float = Field(default=25, ge=0)
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", validation_alias=AliasChoices("log_level", "LOG_LEVEL")
    )

    @field_validator(
        "comfyui_urls",
        "api_keys",
        "input_allow_hosts",
        "allowed_hosts",
        "cors_origins",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("models_headers", mode="before")
    @classmethod
    def _json(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("must be JSON: headers by host") from None

    @field_validator("models_layers", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(os.pathsep) if part)
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("comfyui_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None or value.startswith(("http://", "https://")):
            return value
        raise ValueError("must start with http:// or https://")

    @field_validator("comfyui_urls")
    @classmethod
    def _addresses(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            cls._address(value)
        return values

    @model_validator(mode="after")
    def _keys_from_file(self) -> Self:
        if self.api_keys_file is None:
            return self
        try:
            lines = self.api_keys_file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ValueError(
                f"WAN_API_KEYS_FILE cannot be read: {error.strerror}"
            ) from None
        keys = tuple(SecretStr(line.strip()) for line in lines if line.strip())
        object.__setattr__(self, "api_keys", (*self.api_keys, *keys))
        return self

    @classmethod
    def read(cls, **given: Any) -> Settings:
        """
        Read the environment; `given` (command line options) wins where it is not None.

        Raises:
            BadSettings: naming each variable that holds nonsense.
        """
        try:
            return cls(**{k: v for k, v in given.items() if v is not None})
        except ValidationError as error:
            raise BadSettings("\n".join(_complaints(error))) from None

    @property
    def engine_urls(self) -> tuple[str, ...]:
        """Addresses of the ComfyUIs that somebody else runs."""
        one = (self.comfyui_url,) if self.comfyui_url else ()
        return tuple(url.rstrip("/") for url in self.comfyui_urls or one)

    @property
    def engine_kind(self) -> Literal["embedded", "comfyui", "nunchaku"]:
        """Which engine runs the jobs: the embedded one when no other is named."""
        if self.engine is not None:
            return self.engine
        named = self.engine_urls or self.comfyui_dir or self.comfyui_cmd
        return "comfyui" if named else "embedded"

    @property
    def weights_root(self) -> Path:
        """Where weights are put: a folder with a `models/` like ComfyUI's own."""
        return (self.models or self.comfyui_dir or Path("data/weights")).absolute()

    @property
    def models_folders(self) -> tuple[Path, ...]:
        """The `models` folders of all roots, as the engine searches them."""
        roots = (self.weights_root, *reversed(self.models_layers))
        return tuple(root.absolute() / "models" for root in roots)

    @property
    def hub_token(self) -> str | None:
        """
        Of Hugging Face, from the environment or from the file of a secret mount.

        Raises:
            BadSettings: the file cannot be read.
        """
        if self.hf_token is not None:
            return self.hf_token.get_secret_value() or None
        if self.hf_token_file is None:
            return None
        try:
            return self.hf_token_file.read_text("utf-8").strip() or None
        except OSError as error:
            raise BadSettings(
                f"WAN_HF_TOKEN_FILE: {self.hf_token_file}: {error.strerror}"
            ) from None

    @property
    def supplies(self) -> bool:
        """Whether the service fetches weights: it must know where the engine looks."""
        if self.models_ensure is not None:
            return self.models_ensure
        known = self.models is not None or self.comfyui_dir is not None
        return known and self.engine_kind != "embedded"

    @property
    def public(self) -> bool:
        """Whether the service listens beyond this machine."""
        return self.host not in LOOPBACK


def _complaints(error: ValidationError) -> list[str]:
    """Say each refusal with the variable's name, never with its value."""
    lines = []
    for details in error.errors(include_url=False, include_input=False):
        name = str(details["loc"][0]) if details["loc"] else ""
        field = Settings.model_fields.get(name)
        alias = name if name.isupper() else f"WAN_{name.upper()}"
        if field is not None and isinstance(field.validation_alias, AliasChoices):
            alias = str(field.validation_alias.choices[-1])
        message = details["msg"].removeprefix("Value error, ")
        lines.append(message if not name else f"{alias}: {message}")
    return lines

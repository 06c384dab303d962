"""What the environment says to a container beside the service's own settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.settings import BadSettings


def _named(name: str) -> AliasChoices:
    """Read a variable without our prefix; the names are those people know."""
    return AliasChoices(name)


class Container(BaseSettings):
    """What runs in the container, and what it may be asked for besides."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,  # compose files pass on what was left blank
    )

    service: str | None = Field(default=None, validation_alias=_named("WAN_SERVICE"))
    comfyui_custom_nodes: str = Field(  #: comma-separated folders; all others stay off
        default="", validation_alias=_named("COMFYUI_CUSTOM_NODES")
    )

    enable_jupyter: bool = Field(
        default=False, validation_alias=_named("ENABLE_JUPYTER")
    )
    jupyter_token: SecretStr | None = Field(
        default=None, validation_alias=_named("JUPYTER_TOKEN")
    )
    jupyter_port: int = Field(
        default=8888, ge=1, le=65535, validation_alias=_named("JUPYTER_PORT")
    )
    jupyter_host: str = Field(
        default="0.0.0.0",  # noqa: S104 - it asks for a token
        validation_alias=_named("JUPYTER_HOST"),
    )
    enable_tailscale: bool = Field(
        default=False, validation_alias=_named("ENABLE_TAILSCALE")
    )
    tailscale_authkey: SecretStr | None = Field(
        default=None, validation_alias=_named("TAILSCALE_AUTHKEY")
    )
    tailscale_hostname: str = Field(
        default="wan",
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$",
        validation_alias=_named("TAILSCALE_HOSTNAME"),
    )

    runpod_endpoint: str | None = Field(  #: there on every serverless worker
        default=None, validation_alias=_named("RUNPOD_ENDPOINT_ID")
    )
    runpod_job_url: str | None = Field(  #: there where the endpoint has a queue
        default=None, validation_alias=_named("RUNPOD_WEBHOOK_GET_JOB")
    )
    platform_port: int | None = Field(  #: where a load balancer calls
        default=None, ge=1, le=65535, validation_alias=_named("PORT")
    )

    @model_validator(mode="after")
    def _has_secrets(self) -> Self:
        if self.enable_jupyter and not _secret(self.jupyter_token):
            raise ValueError("ENABLE_JUPYTER needs a JUPYTER_TOKEN of your choice")
        if self.enable_tailscale and not _secret(self.tailscale_authkey):
            raise ValueError("ENABLE_TAILSCALE needs a TAILSCALE_AUTHKEY")
        return self

    @property
    def takes_queue(self) -> bool:
        """Whether RunPod hands us jobs; a load balancer's worker serves HTTP."""
        return bool(self.runpod_endpoint and self.runpod_job_url)

    @property
    def behind_balancer(self) -> bool:
        """Whether RunPod forwards HTTP to us."""
        return bool(self.runpod_endpoint and not self.runpod_job_url)


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


def read() -> Container:
    """
    Read the environment.

    Raises:
        BadSettings: naming what holds nonsense, never its value.
    """
    try:
        return Container()
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ")
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise BadSettings(
            "\n".join(line.removeprefix("Value error, ") for line in lines)
        ) from None


def environment() -> dict[str, str]:
    """Return a copy of what was set for us."""
    return dict(os.environ)


def set_defaults(values: Mapping[str, str]) -> None:
    """Set variables, for `Settings` and for the programs that we start."""
    os.environ.update(values)

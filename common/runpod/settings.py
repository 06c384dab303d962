"""What RunPod's platform, and who deploys there, say in the environment."""

from __future__ import annotations

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.settings import BadSettings

#: Source: runpod-python, `runpod.endpoint_url_base`; docs.runpod.io/api-reference.
API = "https://api.runpod.ai/v2"
REST = "https://rest.runpod.io/v1"


def _named(name: str) -> AliasChoices:
    """Read an environment variable that is not ours to name."""
    return AliasChoices(name)


class RunPod(BaseSettings):
    """The names are RunPod's own, so that what is written about them holds here."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    job_take_url: str | None = Field(  #: absent = not on the platform
        default=None, validation_alias=_named("RUNPOD_WEBHOOK_GET_JOB")
    )
    init_timeout_s: float = Field(  #: the platform gives up on a start after so long
        default=420, gt=0, validation_alias=_named("RUNPOD_INIT_TIMEOUT")
    )
    skip_gpu_check: bool = Field(
        default=False, validation_alias=_named("RUNPOD_SKIP_GPU_CHECK")
    )
    log_level: str = Field(
        default="INFO",  # the SDK's own default, DEBUG, prints every request
        validation_alias=AliasChoices("RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL"),
    )
    bucket_endpoint_url: str | None = Field(
        default=None, validation_alias=_named("BUCKET_ENDPOINT_URL")
    )
    bucket_access_key_id: SecretStr | None = Field(
        default=None, validation_alias=_named("BUCKET_ACCESS_KEY_ID")
    )
    bucket_secret_access_key: SecretStr | None = Field(
        default=None, validation_alias=_named("BUCKET_SECRET_ACCESS_KEY")
    )
    bucket_name: str | None = Field(
        default=None, validation_alias=_named("BUCKET_NAME")
    )

    @property
    def on_platform(self) -> bool:
        """Whether the platform gives us jobs."""
        return self.job_take_url is not None


class Account(BaseSettings):
    """How a person's own machine reaches their RunPod account."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    api_key: SecretStr | None = Field(
        default=None, validation_alias=_named("RUNPOD_API_KEY")
    )
    api_url: str = Field(
        default=API, validation_alias=_named("RUNPOD_ENDPOINT_BASE_URL")
    )
    rest_url: str = Field(default=REST, validation_alias=_named("RUNPOD_REST_URL"))


def read() -> RunPod:
    """
    Read the worker's environment.

    Raises:
        BadSettings: naming what holds nonsense, never its value.
    """
    try:
        return RunPod()
    except ValidationError as error:
        names = ", ".join(str(one["loc"][0]) for one in error.errors())
        raise BadSettings(f"{names}: not a value that we take") from None

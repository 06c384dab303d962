"""
The Hugging Face Hub, or a mirror of it: what a file is and where its bytes are now.

huggingface_hub asks; it knows tokens, gated repositories and redirects. The bytes are
ours to fetch, because it neither resumes nor hashes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from common.models.errors import AuthNeeded
from common.models.sources.address import Address, NotThere, SourceBusy, SourceTrouble
from common.models.sources.expiry import expires_at
from common.source_urls import HubUrl

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata
    from huggingface_hub.errors import HfHubHTTPError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubSource:
    """A file of a repository."""

    label: str
    url: HubUrl
    endpoint: str
    token: str | None = field(repr=False)
    timeout_s: float

    def resolve(self) -> Address:
        """
        Ask the Hub, and return the signed URL of today.

        Raises:
            NotThere: no such file, revision or repository.
            AuthNeeded: the hint has the page where access is asked for.
            SourceTrouble: no answer, or one of trouble.
        """
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        # Else it asks huggingface.co which agents there are, and names ours to the Hub.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        found = self._metadata()
        headers: dict[str, str] = build_hf_headers(token=self._token)
        if _origin(found.location) != _origin(self.endpoint):
            headers = {}  # the URL is signed, and the token is nobody else's business
        etag = found.etag or ""
        return Address(
            url=found.location,
            headers=headers,
            size=found.size,
            sha256=etag if _SHA256.fullmatch(etag) else None,
            expires_at=expires_at(found.location),
        )

    @property
    def _token(self) -> str | bool:
        """The token; False = none, not even one that huggingface_hub would find."""
        return self.token or False

    @property
    def _page(self) -> str:
        return f"{self.endpoint.rstrip('/')}/{self.url.repo}"

    def _metadata(self) -> HfFileMetadata:
        from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

        # Of its HTTP library, whichever that is in this release.
        no_answer: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
        try:
            return get_hf_file_metadata(
                hf_hub_url(
                    self.url.repo,
                    self.url.path,
                    revision=self.url.revision,
                    endpoint=self.endpoint,
                ),
                token=self._token,
                timeout=self.timeout_s,
                endpoint=self.endpoint,
            )
        except errors.HfHubHTTPError as error:
            raise self._refusal(error) from None  # its text repeats URLs and requests
        except errors.OfflineModeIsEnabled:
            raise SourceTrouble(f"{self.label}: HF_HUB_OFFLINE is set") from None
        except errors.HFValidationError:
            raise NotThere(f"{self.label} is no name that the Hub takes") from None
        except (no_answer, OSError) as error:
            words = f"{self.label} does not answer ({type(error).__name__})"
            hint = f"is {self.endpoint} reachable from here? HF_ENDPOINT names another"
            raise SourceTrouble(words, hint) from None

    def _refusal(self, error: HfHubHTTPError) -> NotThere | AuthNeeded | SourceTrouble:
        from huggingface_hub import errors

        status = error.response.status_code
        advice = "set HF_TOKEN to a token that may read it"
        if isinstance(error, errors.GatedRepoError):
            return AuthNeeded(
                f"{self.label}: its publisher wants terms to be accepted",
                f"accept them on {self._page}, and {advice}",
            )
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return NotThere(f"{self.label}: the repository has no such file")
        if isinstance(error, errors.RevisionNotFoundError):
            return NotThere(f"{self.label}: the repository has no such revision")
        if isinstance(error, errors.DisabledRepoError):
            return NotThere(f"{self.label}: the repository is disabled")
        if isinstance(error, errors.RepositoryNotFoundError) and self.token is not None:
            words = "no such repository, or the token may not see it"
            return AuthNeeded(f"{self.label}: {words}", f"see {self._page}")
        if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
            words = "it is not there, or a token is needed"
            if self.token:
                words = "the token is refused"
            return AuthNeeded(f"{self.label}: {words}", f"{advice}: {self._page}")
        if status in (404, 410):
            return NotThere(f"{self.label} is not there")
        if status in (429, 503):
            words = f"{self.label}: status {status}"
            return SourceBusy(words, status, error.response.headers)
        return SourceTrouble(f"{self.label}: status {status}")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port

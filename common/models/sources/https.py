"""A plain web server; what it wants to be told is set by host."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from common.models.errors import AuthNeeded
from common.models.sources.address import Address, NotThere, SourceBusy, SourceTrouble
from common.models.sources.expiry import expires_at
from common.source_urls import HttpUrl

if TYPE_CHECKING:
    from urllib3 import PoolManager, Retry

log = logging.getLogger(__name__)

_REDIRECTS = 5


def _pool(url: str, timeout_s: float, retries: Retry) -> PoolManager:
    """Return what asks, by way of the proxy that carries the bytes as well."""
    import urllib3

    from common.models.line import proxy_headers, proxy_of

    proxy = proxy_of(urlsplit(url))
    if proxy is None:
        return urllib3.PoolManager(timeout=timeout_s, retries=retries)
    host = f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}"
    headers = proxy_headers(proxy)
    return urllib3.ProxyManager(
        host, proxy_headers=headers, timeout=timeout_s, retries=retries
    )


@dataclass(frozen=True)
class HttpSource:
    """A URL that is asked with HEAD, and read as it is."""

    label: str
    url: HttpUrl
    host_headers: Mapping[str, Mapping[str, str]] = field(repr=False)
    timeout_s: float

    def resolve(self) -> Address:
        """
        Ask for the size.

        Some servers refuse HEAD and answer GET; then the size is not known, and GET
        will say what there is.

        Raises:
            NotThere: 404 or 410.
            AuthNeeded: 401.
            SourceTrouble: no answer, or one of trouble.
        """
        import urllib3

        url = self.url.url
        headers = self._headers()
        retries = urllib3.Retry(
            total=_REDIRECTS,
            connect=0,
            read=0,
            status=0,
            other=0,
            redirect=_REDIRECTS,
            raise_on_redirect=False,
            respect_retry_after_header=False,  # waiting is for who asks
            remove_headers_on_redirect=frozenset(headers),
        )
        try:
            with _pool(url, self.timeout_s, retries) as pool:
                answer = pool.request(
                    "HEAD", url, headers={"Accept-Encoding": "identity", **headers}
                )
        except urllib3.exceptions.HTTPError as error:
            words = f"{self.label} does not answer ({type(error).__name__})"
            host = urlsplit(url).hostname
            raise SourceTrouble(words, f"is {host} reachable from here?") from None
        if answer.status in (429, 503):
            words = f"{self.label}: status {answer.status}"
            raise SourceBusy(words, answer.status, answer.headers)
        return Address(
            url=url,
            headers=headers,
            size=self._size(answer.status, answer.headers.get("Content-Length")),
            expires_at=expires_at(url),
        )

    def _headers(self) -> dict[str, str]:
        """Return what the host is told; nothing where others could read it."""
        host = urlsplit(self.url.url).hostname or ""
        headers = dict(self.host_headers.get(host, {}))
        if headers and not _unread(self.url.url):
            _warn(host)
            return {}
        return headers

    def _size(self, status: int, length: str | None) -> int | None:
        if status == 401:
            host = urlsplit(self.url.url).hostname
            hint = f"set the header that {host} wants in WAN_MODELS_HEADERS"
            if not _unread(self.url.url):
                hint += ", and write https://: it is sent over nothing else"
            raise AuthNeeded(f"{self.label}: status 401", hint)
        if status in (404, 410):
            raise NotThere(f"{self.label} is not there")
        if status >= 500 and status != 501:
            raise SourceTrouble(f"{self.label}: status {status}")
        if not 200 <= status < 300 or length is None or not length.isdecimal():
            return None
        return int(length)


def _unread(url: str) -> bool:
    """Whether nobody on the way can read what is sent: by https, or to this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@cache
def _warn(host: str) -> None:
    log.warning(
        "%s is asked over http://: its headers of WAN_MODELS_HEADERS are not sent,"
        " since anybody on the way could read them; write https://",
        host,
    )

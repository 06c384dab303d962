"""
HTTP calls to a service, tried again for as long as that can help and we have patience.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

JsonObject = dict[str, Any]

AGAIN = frozenset({429, 502, 503, 504})
BROKEN = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
CONNECT_S = 10.0


class Refused(Exception):
    """The service said no: its problem document."""

    def __init__(
        self, status: int, problem: Mapping[str, Any], retry_after_s: float | None
    ) -> None:
        self.status = status
        self.code = str(problem.get("code", "internal"))
        self.detail = str(problem.get("detail") or f"the service answered {status}")
        self.errors: list[JsonObject] = list(problem.get("errors") or [])
        self.request_id = problem.get("request_id")
        self.retry_after_s = retry_after_s
        super().__init__(self.detail)


class Unreachable(Exception):
    """Nothing answers at the address, or no longer."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no service answers at {url}")
        self.url = url


class Calls:
    """
    Calls to one service.

    Args:
        url: where it is, without a slash at the end.
        api_key: sent as `Authorization: Bearer`.
        timeout_s: silence on one connection.
        patience_s: how long the service may be away, or full, before we give up.
    """

    def __init__(
        self, url: str, api_key: str | None, timeout_s: float, patience_s: float
    ) -> None:
        self.url = url
        self.api_key = api_key
        self.patience_s = patience_s
        host = urlsplit(url).hostname
        self.near = host if host in LOOPBACK else None  #: its name, on this machine
        self._timeout = (min(CONNECT_S, timeout_s), timeout_s)
        self._session = requests.Session()
        self._session.auth = self._authorize
        # A company's proxy has no way back to this machine.
        self._session.trust_env = self.near is None

    def path_of(self, link: str) -> str:
        """
        Return where a link that the service gave leads, from its address on.

        Behind a proxy the links begin with the path that it serves the service under,
        which is the end of our address too.
        """
        return link.removeprefix(urlsplit(self.url).path)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As `auth`, so that no .netrc replaces it and no redirect takes it elsewhere.
        if self.api_key:
            request.headers["Authorization"] = f"Bearer {self.api_key}"
        return request

    def json(self, method: str, path: str, **options: Any) -> JsonObject:
        """Return the answer's JSON object."""
        answer = self.call(method, path, **options)
        try:
            found = answer.json()
        except ValueError:
            found = None  # whatever it is, it is no service of ours
        if not isinstance(found, dict):
            raise Unreachable(self.url)
        return found

    def call(
        self,
        method: str,
        path: str,
        *,
        paths: Mapping[str, Path] | None = None,
        patience_s: float | None = None,
        fine: tuple[int, ...] = (),
        **options: Any,
    ) -> requests.Response:
        """Call until there is an answer that another try would not change."""
        patience_s = self.patience_s if patience_s is None else patience_s
        end = time.monotonic() + patience_s
        pause_s = 0.25
        while True:
            refusal: Refused | None = None
            try:
                answer = self._once(method, path, paths, options)
            except BROKEN:
                wait_s = pause_s
            else:
                if answer.ok or answer.status_code in fine:
                    return answer
                refusal = _refusal(answer)
                if answer.status_code not in AGAIN:
                    raise refusal
                wait_s = max(pause_s, refusal.retry_after_s or 0)
            if time.monotonic() + wait_s > end:
                raise refusal or Unreachable(self.url)
            time.sleep(wait_s)
            pause_s = min(5.0, pause_s * 2)

    def _once(
        self,
        method: str,
        path: str,
        paths: Mapping[str, Path] | None,
        options: Mapping[str, Any],
    ) -> requests.Response:
        with ExitStack() as stack:
            files = {
                name: (one.name, stack.enter_context(one.open("rb")))
                for name, one in (paths or {}).items()
            }
            return self._session.request(
                method,
                self.url + path,
                files=files or None,
                timeout=self._timeout,
                **options,
            )


def _refusal(answer: requests.Response) -> Refused:
    """Read a problem document; a proxy's page counts as an empty one."""
    with answer:
        try:
            problem = answer.json()
        except (ValueError, requests.RequestException):
            problem = {}
    after = answer.headers.get("Retry-After", "")
    seconds = float(after) if after.isdecimal() else None
    return Refused(
        answer.status_code, problem if isinstance(problem, dict) else {}, seconds
    )

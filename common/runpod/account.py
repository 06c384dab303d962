"""
A person's RunPod account: endpoints made and changed, jobs sent to them.

Two APIs with one key: REST for what there is, and the endpoints' own for jobs. The key
is never part of a message.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import requests

from common.runpod.settings import Account

TIMEOUT_S = (10, 60)  #: to connect, and between two bytes
AGAIN = (429, 500, 502, 503, 504)
TRIES = 4  #: of calls that change nothing; 1 + 2 + 4 seconds between them
POLL_S = 2.0
OVER = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})

JsonObject = dict[str, Any]


class Denied(Exception):
    """RunPod did not do as asked; the message says what it answered."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status  #: None = no answer at all


class Client:
    """
    Calls RunPod.

    Raises:
        Denied: in each method.
    """

    def __init__(self, account: Account) -> None:
        if not account.api_key:
            raise Denied("RUNPOD_API_KEY is not set", 401)
        self._rest = account.rest_url.rstrip("/")
        self._api = account.api_url.rstrip("/")
        self._http = requests.Session()
        self._http.trust_env = False  # a .netrc would replace the key
        self._http.headers["Authorization"] = (
            f"Bearer {account.api_key.get_secret_value()}"
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def put_template(self, body: JsonObject) -> JsonObject:
        """Make a template, or change the one of that name."""
        return self._put("templates", body, fixed=("isServerless",))

    def put_endpoint(self, body: JsonObject) -> JsonObject:
        """Make an endpoint, or change the one of that name."""
        return self._put("endpoints", body, fixed=("computeType",))

    def endpoint(self, endpoint_id: str) -> JsonObject:
        """Return how an endpoint is set."""
        return self._object("GET", f"{self._rest}/endpoints/{endpoint_id}")

    def health(self, endpoint_id: str) -> JsonObject:
        """Return how many jobs and workers it has, by their state."""
        return self._object("GET", f"{self._api}/{endpoint_id}/health")

    def run(self, endpoint_id: str, input_: JsonObject, limit_s: float) -> JsonObject:
        """Put a job into the queue; it may run for `limit_s`."""
        body = {"input": input_, "policy": {"executionTimeout": int(limit_s * 1000)}}
        return self._object("POST", f"{self._api}/{endpoint_id}/run", body)

    def follow(self, endpoint_id: str, job_id: str) -> Iterator[JsonObject]:
        """Yield a job as it stands, every two seconds, until it is over."""
        while True:
            url = f"{self._api}/{endpoint_id}/status/{job_id}"
            job = self._object("GET", url)
            yield job
            if job.get("status") in OVER:
                return
            time.sleep(POLL_S)

    def cancel(self, endpoint_id: str, job_id: str) -> JsonObject:
        """Cancel a job."""
        return self._object("POST", f"{self._api}/{endpoint_id}/cancel/{job_id}", {})

    def fetch(self, url: str) -> requests.Response:
        """Get a file by its signed link, without our key."""
        try:
            answer = requests.get(url, stream=True, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise Denied(f"the output cannot be fetched: {_kind(error)}") from None
        if not answer.ok:
            answer.close()
            raise Denied(f"the output's link answers {answer.status_code}")
        return answer

    def _put(self, kind: str, body: JsonObject, fixed: tuple[str, ...]) -> JsonObject:
        """Change what has that name; without `fixed`, which cannot be changed."""
        url = f"{self._rest}/{kind}"
        there = self._call("GET", url)
        for one in there if isinstance(there, list) else ():
            # The console marks the names of endpoints that revive fast.
            if str(one.get("name", "")).removesuffix(" -fb") == body["name"]:
                changes = {k: v for k, v in body.items() if k not in fixed}
                return self._object("PATCH", f"{url}/{one['id']}", changes)
        return self._object("POST", url, body)

    def _object(self, method: str, url: str, body: Any = None) -> JsonObject:
        found = self._call(method, url, body)
        if not isinstance(found, dict):
            raise Denied("RunPod's answer is not the one that its documents promise")
        return found

    def _call(self, method: str, url: str, body: Any = None) -> Any:
        tries = TRIES if method == "GET" else 1
        for number in range(tries):
            if number:
                time.sleep(2 ** (number - 1))
            try:
                answer = self._http.request(method, url, json=body, timeout=TIMEOUT_S)
            except requests.RequestException as error:
                denied = Denied(f"RunPod does not answer: {_kind(error)}")
                continue
            if answer.ok:
                return _json(answer)
            denied = Denied(_said(answer), answer.status_code)
            if answer.status_code not in AGAIN:
                break
        raise denied


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise Denied("RunPod's answer is no JSON", answer.status_code) from None


def _said(answer: requests.Response) -> str:
    """Return what a refusal says, in a line."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    said = body.get("error") or body.get("message") if isinstance(body, dict) else None
    if answer.status_code in (401, 403):
        said = said or "the key is not accepted"
    return f"RunPod answers {answer.status_code}: {said or answer.reason}"[:500]


def _kind(error: requests.RequestException) -> str:
    """Name a fault; its text would quote the whole address, signature and all."""
    return type(error).__name__

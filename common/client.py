"""
The synchronous client of a service: submit, watch, download.

    client = Client("http://127.0.0.1:8189")
    job = client.submit({"prompt": "a red fox in snow"})
    for job in client.watch(job["id"]):
        print(job["status"], job["progress"]["value"])
    client.download(job, "fox.mp4")

Whatever can be lost on the way is asked for again: a submission under the same
idempotency key, a watch from the last change seen, a download from the last byte.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import requests
import websocket

from common.calls import CONNECT_S, Calls, JsonObject, Refused, Unreachable
from common.disk import partial, publish_part
from common.job import TERMINAL

__all__ = ["BadDownload", "Client", "Refused", "Unreachable", "over"]

TERMINAL_WORDS = frozenset(status.value for status in TERMINAL)
CHUNK_BYTES = 64 << 10
SOCKET_SILENCE_S = 45.0  # the service pings every 20 s
POLL_S = 1.0


class BadDownload(Exception):
    """The bytes that came are not those of the output."""


class Client:
    """
    One service.

    Args:
        url: such as http://127.0.0.1:8189.
        api_key: sent as `Authorization: Bearer`.
        timeout_s: silence on one connection.
        patience_s: how long the service may be away, or full, before we give up.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        patience_s: float = 60.0,
    ) -> None:
        self._calls = Calls(url.rstrip("/"), api_key, timeout_s, patience_s)

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._calls.url

    def address_of(self, link: str) -> str:
        """Return the whole address of a link in one of the service's answers."""
        return self.url + self._calls.path_of(link)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()

    def hasty(self, timeout_s: float = CONNECT_S) -> Client:
        """Return a client of the same service that asks once; for another thread."""
        return Client(self.url, self._calls.api_key, timeout_s=timeout_s, patience_s=0)

    # ---- calls

    def card(self) -> JsonObject:
        """Return what the service is."""
        return self._calls.json("GET", "/", patience_s=0)

    def ready(self) -> JsonObject:
        """Return whether a job could run now, and what is missing."""
        return self._calls.json("GET", "/ready", patience_s=0, fine=(200, 503))

    def submit(
        self,
        fields: Mapping[str, object],
        files: Mapping[str, Path | str] | None = None,
        idempotency_key: str | None = None,
    ) -> JsonObject:
        """
        Hand in a request and return its job.

        Raises:
            Refused: a field is wrong, or the queue stayed full.
            Unreachable: nothing answered for as long as we have patience.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        if not files:
            return self._calls.json(
                "POST", "/generate", json=dict(fields), headers=headers
            )
        texts = {k: _text(v) for k, v in fields.items() if v is not None}
        paths = {name: Path(path) for name, path in files.items()}
        return self._calls.json(
            "POST", "/generate", data=texts, paths=paths, headers=headers
        )

    def estimate(self, fields: Mapping[str, object]) -> JsonObject:
        """Return what a request would take; files may be left out."""
        return self._calls.json("POST", "/estimate", json=dict(fields))

    def upload(self, path: Path | str) -> JsonObject:
        """Send a file ahead; its `id` is taken wherever a file is."""
        return self._calls.json("POST", "/uploads", paths={"file": Path(path)})

    def get(self, job_id: str) -> JsonObject:
        """Return a job."""
        return self._calls.json("GET", _job(job_id))

    def list(
        self, *, status: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> JsonObject:
        """Return a page of jobs, newest first, and `next_cursor`."""
        query = {"status": status, "limit": limit, "cursor": cursor}
        return self._calls.json("GET", "/jobs", params=query)

    def cancel(self, job_id: str) -> JsonObject:
        """Ask to stop a job, and return it."""
        return self._calls.json("POST", f"{_job(job_id)}/cancel")

    # ---- following

    def watch(self, job_id: str) -> Iterator[JsonObject]:
        """
        Yield the job now and after each change; the last one is over.

        Over the WebSocket; where that does not stand, the job is asked for.

        Raises:
            Refused: there is no such job.
            Unreachable: the service stayed away for as long as we have patience.
        """
        seen: int | None = None
        last: JsonObject | None = None
        while True:
            try:
                with closing(self._frames(job_id, seen)) as frames:
                    for number, job in frames:
                        seen, last = number, job
                        yield job
                        if over(job):
                            return
            except (OSError, websocket.WebSocketException, ValueError):
                pass  # asked for below, which also tells why
            job = self.get(job_id)
            if job != last:
                last = job
                yield job
            if over(job):
                return
            time.sleep(POLL_S)

    def _frames(
        self, job_id: str, after: int | None
    ) -> Generator[tuple[int, JsonObject], None, None]:
        query = "" if after is None else f"?last_event_id={after}"
        address = f"ws{self.url.removeprefix('http')}{_job(job_id)}/ws{query}"
        headers = (
            [f"Authorization: Bearer {self._calls.api_key}"]
            if self._calls.api_key
            else []
        )
        near = self._calls.near
        connection = websocket.create_connection(
            address,
            timeout=CONNECT_S,
            header=headers,
            suppress_origin=True,
            http_no_proxy=[near] if near else None,
        )
        with closing(connection):
            connection.settimeout(SOCKET_SILENCE_S)
            while text := connection.recv():
                frame = json.loads(text)
                if frame["event"] == "job":
                    yield frame["id"], frame["data"]

    # ---- downloads

    def download(self, job: JsonObject, path: Path | str, output: int = 0) -> Path:
        """
        Save an output of a job under `path`, whole and checked or not at all.

        Raises:
            Refused: the file is gone.
            Unreachable: the service stayed away for as long as we have patience.
            BadDownload: its sha256 is not the one that the job names.
        """
        wanted, path = job["outputs"][output], Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial(path) as part:
            digest = hashlib.sha256()
            with part.open("wb") as file:
                self._fetch(wanted, file, digest.update)
            if digest.hexdigest() != wanted["sha256"]:
                raise BadDownload(f"{wanted['name']} came damaged: try again")
            publish_part(part, path)
        return path

    def _fetch(self, wanted: JsonObject, file: BinaryIO, update: Any) -> None:
        """Read a file to its end, going on where a connection broke."""
        size, at = wanted["size_bytes"], 0
        path = self._calls.path_of(wanted["url"])
        end = time.monotonic() + self._calls.patience_s
        while at < size:
            headers = {"Accept-Encoding": "identity"}
            if at:
                headers |= {
                    "Range": f"bytes={at}-",
                    "If-Range": f'"{wanted["sha256"]}"',
                }
            try:
                with self._calls.call(
                    "GET", path, headers=headers, stream=True
                ) as answer:
                    if at and answer.status_code != requests.codes.partial_content:
                        raise BadDownload(f"{wanted['name']} changed on the way")
                    for chunk in answer.iter_content(CHUNK_BYTES):
                        file.write(chunk)
                        update(chunk)
                        at += len(chunk)
                        end = time.monotonic() + self._calls.patience_s
                if at < size:
                    raise requests.ConnectionError("cut short")
            except requests.RequestException:
                if time.monotonic() > end:
                    raise Unreachable(self.url) from None
                time.sleep(POLL_S)


def over(job: Mapping[str, Any]) -> bool:
    """Tell whether a job will not change any more."""
    return job["status"] in TERMINAL_WORDS


def _job(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


def _text(value: object) -> str:
    """Return a field as the text of a multipart part."""
    return value if isinstance(value, str) else json.dumps(value)

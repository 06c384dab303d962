"""Published files over HTTP: whole, in part, or not again."""

from __future__ import annotations

import asyncio
import re
import stat
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from common.api.problems import response
from common.disk import DISK_FULL
from common.errors import NoSpace, NotFound, RangeNotSatisfiable
from common.job import Job
from common.poster import make_poster
from common.runtime import Runtime

GONE = "the file is gone"
# One range at a time; what else a Range header may say is ignored, as HTTP allows.
_RANGE = re.compile(rb"bytes=(\d{0,99})-(\d{0,99})")


async def output_of(
    runtime: Runtime, job: Job, name: str, request: Request
) -> Response:
    """
    Return a published file; only names in the job's own record exist.

    A poster is made when it is first asked for.

    Raises:
        NotFound: there is no such output, or its file is gone.
        NoSpace: the disk has no room for the poster.
    """
    for one in job.outputs:
        if name == one.name:
            tag, kind = f'"{one.sha256}"', one.content_type
        elif name == one.poster:
            tag, kind = f'"{one.sha256}-poster"', "image/jpeg"
        else:
            continue
        headers = {"ETag": tag, "Cache-Control": "private, max-age=86400, immutable"}
        path = runtime.files.job(job.id) / name
        if name == one.poster and not path.exists():
            async with runtime.posters:
                if not path.exists():  # who waited may find it made
                    await _make(path.with_name(one.name), path)
        try:
            found = path.lstat()
        except OSError:
            raise NotFound(GONE) from None
        if not stat.S_ISREG(found.st_mode):  # no symbolic link
            raise NotFound(GONE)
        known = request.headers.get("if-none-match", "")
        if tag in known or known == "*":
            return Response(status_code=304, headers=headers)
        return File(
            path,
            stat_result=found,
            media_type=kind,
            filename=f"{job.id}-{name}",
            content_disposition_type="inline",
            headers=headers,
        )
    raise NotFound("the job has no such output")


async def _make(video: Path, poster: Path) -> None:
    try:
        await asyncio.to_thread(make_poster, video, poster)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise NoSpace("the disk of the data folder is full") from error
        raise NotFound("the file is gone, or cannot be read") from error


class File(FileResponse):
    """A file that tells with a problem that it is gone, or has no such range."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the part that is asked for."""
        start: Message | None = None

        async def checked(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    raise _Outside(Headers(raw=message["headers"])["content-range"])
                start = message  # held back until the file is open and read
                return
            if start is not None:
                held, start = start, None
                await send(held)
            await send(message)

        heads = [
            (name, value)
            for name, value in scope["headers"]
            if name != b"range" or _is_range(value)
        ]
        try:
            await super().__call__({**scope, "headers": heads}, receive, checked)
        except _Outside as outside:
            error = RangeNotSatisfiable("the file has no such part")
            answer = response(error, scope["state"]["request_id"])
            answer.headers["content-range"] = str(outside)
            await answer(scope, receive, send)
        except FileNotFoundError:
            raise NotFound(GONE) from None  # deleted since it was looked for


def _is_range(value: bytes) -> bool:
    """Tell one range whose end is not before its start. Source: RFC 9110, 14.1.1."""
    found = _RANGE.fullmatch(value)
    if found is None or not any(found.groups()):
        return False
    first, last = found.groups()
    return not (first and last) or int(first) <= int(last)


class _Outside(Exception):
    """The range is not in the file; its text is what Content-Range says then."""

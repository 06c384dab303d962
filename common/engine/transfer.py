"""Files over HTTP: /view and /upload/image."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

from aiohttp import web

from common.engine.files import KINDS, Outside, inside
from common.engine.settings import EngineSettings

SETTINGS = web.AppKey("settings", EngineSettings)

#: A browser would run these, so they are sent as plain bytes. Source: ComfyUI.
ACTIVE = frozenset({"text/html", "text/javascript", "text/css", "image/svg+xml"})


async def view(request: web.Request) -> web.StreamResponse:
    """Send one file: whole, a range of it, or 304."""
    name = request.query.get("filename")
    if not name:
        return web.Response(status=404)
    kind = request.query.get("type", "output")
    if name.startswith("/") or ".." in name or kind not in KINDS:
        return web.Response(status=400)
    try:
        folder = request.app[SETTINGS].folder(kind)
        path = inside(folder, request.query.get("subfolder", ""), Path(name).name)
    except Outside:
        return web.Response(status=403)
    if not path.is_file():
        return web.Response(status=404)
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if content_type in ACTIVE:
        content_type = "application/octet-stream"
    headers = {
        "Content-Disposition": f'filename="{path.name}"',
        "Content-Type": content_type,
    }
    return web.FileResponse(path, headers=headers)


async def upload(request: web.Request) -> web.Response:
    """Take one file; the same bytes keep the name, others get "x (1).png"."""
    form = await request.post()
    sent = form.get("image")
    kind = str(form.get("type", "input"))
    if not isinstance(sent, web.FileField) or not sent.filename or kind not in KINDS:
        return web.Response(status=400)
    subfolder = str(form.get("subfolder", ""))
    settings = request.app[SETTINGS]
    try:
        folder = inside(settings.folder(kind), subfolder)
        path = inside(folder, sent.filename)
    except Outside:
        return web.Response(status=400)
    data = sent.file.read()
    path.parent.mkdir(parents=True, exist_ok=True)
    if form.get("overwrite") not in ("true", "1"):
        path = _free_name(path, hashlib.sha256(data).digest())
    path.write_bytes(data)
    answer = {"name": path.name, "subfolder": subfolder, "type": kind}
    return web.json_response(answer)


def _free_name(wanted: Path, digest: bytes) -> Path:
    """Return the first of x.png, x (1).png, … that is free or has these bytes."""
    path, number = wanted, 0
    while path.exists() and hashlib.sha256(path.read_bytes()).digest() != digest:
        number += 1
        path = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}")
    return path

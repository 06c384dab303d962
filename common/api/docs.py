"""The page at /docs: what /openapi.json says, to read and to try out."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse

from common.errors import NotFound
from common.service import Service

#: Swagger UI's own files, by what they are; served by us, so that no other server is
#: needed.
ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
KEEP_S = 86400
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def routes(service: Service, root: str = "") -> APIRouter:
    """Return the routes; `root` is the path that a proxy serves us under."""
    router = APIRouter()
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title=service.title,
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    html = bytes(page.body).decode()
    policy = f"default-src 'none'; connect-src 'self'; img-src data:; {scripts(html)}"

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        headers = {"Content-Security-Policy": policy}
        return Response(html, media_type="text/html", headers=headers)

    @router.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in ASSETS:
            raise NotFound("the documentation has no such file")
        headers = {"Cache-Control": f"max-age={KEEP_S}"}
        return FileResponse(_folder() / name, headers=headers, media_type=ASSETS[name])

    return router


def scripts(html: str) -> str:
    """Return the part of the policy that lets the page's own scripts run, by hash."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE.findall(html)
    )
    return f"script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'"


@cache
def _folder() -> Path:
    """Return where the files are; the package that brings them is not imported."""
    found = find_spec("fastapi_offline")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "static"

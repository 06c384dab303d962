"""The page at /docs: what /openapi.json says, to read and to try out."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html

from common.service import Service

# One version, so that the page does not change under its readers; it comes from a
# server that is not ours, and what runs is bounded by the policy below.
SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.29.5"
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def routes(service: Service, root: str = "") -> APIRouter:
    """Return the route; `root` is the path that a proxy serves us under."""
    router = APIRouter()
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title=service.title,
        swagger_js_url=f"{SWAGGER}/swagger-ui-bundle.js",
        swagger_css_url=f"{SWAGGER}/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    html = bytes(page.body).decode()
    policy = f"default-src 'none'; connect-src 'self'; img-src data:; {scripts(html)}"

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        headers = {"Content-Security-Policy": policy}
        return Response(html, media_type="text/html", headers=headers)

    return router


def scripts(html: str) -> str:
    """Return the part of the policy that lets the page's own scripts run, by hash."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE.findall(html)
    )
    return f"script-src {SWAGGER}/ {hashes}; style-src {SWAGGER}/ 'unsafe-inline'"

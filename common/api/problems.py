"""Errors as RFC 9457 problems: one shape for every refusal, from whatever layer."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import compile_path

from common.errors import FieldError, InvalidInput, ServiceError

MEDIA_TYPE = "application/problem+json"


def problem(error: ServiceError, request_id: str) -> dict[str, Any]:
    """Return an error as a problem document."""
    return {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "errors": [field.as_dict() for field in error.errors],
        "request_id": request_id,
    }


def headers(error: ServiceError) -> dict[str, str]:
    """Return what a client needs to know beside the body."""
    found = {}
    if error.retry_after_s is not None:
        found["Retry-After"] = str(math.ceil(error.retry_after_s))
    if error.status == HTTPStatus.UNAUTHORIZED:
        found["WWW-Authenticate"] = "Bearer"
    return found


def text(error: ServiceError, request_id: str) -> str:
    """Return an error as the JSON of a problem."""
    return json.dumps(problem(error, request_id), ensure_ascii=False)


def response(error: ServiceError, request_id: str) -> Response:
    """Return an error as a response."""
    return Response(
        text(error, request_id),
        error.status,
        media_type=MEDIA_TYPE,
        headers=headers(error),
    )


def install(app: FastAPI) -> None:
    """Answer every refusal with a problem; `Gate` answers what nobody foresaw."""

    def request_id(request: HTTPConnection) -> str:
        return str(request.scope.get("state", {}).get("request_id", ""))

    @app.exception_handler(ServiceError)
    async def ours(request: Request | WebSocket, error: ServiceError) -> Response:
        return response(error, request_id(request))

    @app.exception_handler(HTTPException)
    async def theirs(request: Request, error: HTTPException) -> Response:
        answer = response(translated(error), request_id(request))
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = ", ".join(methods(app, request.url.path))
        return answer

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        # Path and query parameters only: bodies go through `common.api.body`.
        fields = [
            FieldError(".".join(map(str, found["loc"][1:])), found["msg"])
            for found in error.errors()[:20]
        ]
        first = f"{fields[0].field}: {fields[0].message}"
        return response(InvalidInput(first, errors=fields), request_id(request))


def methods(app: FastAPI, path: str) -> list[str]:
    """Return what an address takes; the framework names one route's methods only."""
    return sorted(
        method.upper()
        for template, item in app.openapi()["paths"].items()
        for method in item
        if compile_path(template)[0].match(path)
    )


def translated(error: HTTPException) -> ServiceError:
    """Return one of our errors for one of the framework's."""
    for known in _all(ServiceError):
        if known.status == error.status_code and known.code != "input_unreachable":
            return known(_DETAILS.get(error.status_code, known.title.lower()))
    return ServiceError("the request failed")


def _all(cls: type[ServiceError]) -> list[type[ServiceError]]:
    direct = cls.__subclasses__()
    return [*direct, *(found for sub in direct for found in _all(sub))]


_DETAILS = {
    404: "there is nothing at this address; GET /docs lists what there is",
    405: "this address does not take this method",
}

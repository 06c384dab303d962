"""
A request's body as fields and files: strict JSON, or multipart with the same names.

The framework's own parsing is not used: it takes the last of two equal keys, NaN, and
a multipart body that was cut short.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from functools import cache
from typing import Any

from fastapi import Request as HttpRequest
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from common import strict_json
from common.errors import (
    MalformedRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from common.request import Request

# Pictures come in JSON as base64: 16 MiB of file fit.
MAX_JSON_BYTES = 24 << 20
MAX_TEXT_PART_BYTES = 1 << 20
MAX_PARTS = 64

_CHARSET = re.compile(r"utf-?8", re.IGNORECASE)


async def read(
    http: HttpRequest, request: type[Request], max_file_bytes: int
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """
    Return (fields, files) of a request.

    Raises:
        MalformedRequest, PayloadTooLarge, UnsupportedMediaType.
    """
    kind, options = content_type(http.headers)
    if kind == "application/json":
        charset = options.get("charset", "utf-8")
        if not _CHARSET.fullmatch(charset):
            raise UnsupportedMediaType("send JSON as UTF-8")
        body = strict_json.loads(await collect(http, MAX_JSON_BYTES))
        if not isinstance(body, dict):
            raise MalformedRequest("send a JSON object with the request's fields")
        return body, {}
    if kind == "multipart/form-data":
        form = await parts(http, options.get("boundary", ""), max_file_bytes)
        try:
            return fields_of(form, request), await files_of(form)
        finally:  # a refusal leaves temporary files open otherwise
            await form.close()
    raise UnsupportedMediaType("send application/json or multipart/form-data")


async def read_file(http: HttpRequest, max_bytes: int) -> bytes:
    """Return the one file part, named `file`, of an upload."""
    kind, options = content_type(http.headers)
    if kind != "multipart/form-data":
        raise UnsupportedMediaType("send multipart/form-data with a part named 'file'")
    form = await parts(http, options.get("boundary", ""), max_bytes)
    files = await files_of(form)
    if set(files) != {"file"} or len(form.multi_items()) != 1:
        raise MalformedRequest("send exactly one file part, named 'file'")
    return files["file"]


def content_type(headers: Headers) -> tuple[str, dict[str, str]]:
    """Return the body's media type and its parameters."""
    values = headers.getlist("content-type")
    if len(values) != 1:
        raise UnsupportedMediaType("say once what the body is, in Content-Type")
    kind, options = parse_options_header(values[0])
    return kind.decode("latin-1").lower(), {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in options.items()
    }


async def collect(http: HttpRequest, max_bytes: int) -> bytes:
    """Read the whole body, up to a limit."""
    length = int(http.headers.get("content-length", "0"))
    if length > max_bytes:
        raise too_large(max_bytes)
    data = bytearray()
    try:
        async for chunk in http.stream():
            data += chunk
            if len(data) > max_bytes:
                raise too_large(max_bytes)
    except ClientDisconnect:
        raise MalformedRequest("the body was cut short") from None
    return bytes(data)


async def parts(http: HttpRequest, boundary: str, max_bytes: int) -> FormData:
    """Parse a multipart body that is whole."""
    if not boundary or len(boundary) > 200:
        raise MalformedRequest("the multipart boundary is missing or too long")
    data = await collect(http, max_bytes + MAX_TEXT_PART_BYTES)
    # Starlette takes a body that was cut off before its last boundary.
    if not data.rstrip(b"\r\n ").endswith(f"--{boundary}--".encode("latin-1")):
        raise MalformedRequest("the multipart body is cut short")

    async def whole() -> AsyncGenerator[bytes, None]:
        yield data
        yield b""

    parser = MultiPartParser(
        http.headers,
        whole(),
        max_files=8,
        max_fields=MAX_PARTS,
        max_part_size=MAX_TEXT_PART_BYTES,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise MalformedRequest(
            f"the multipart body is broken: {error.message}"
        ) from None
    except (KeyError, ValueError, UnicodeError):
        raise MalformedRequest("the multipart body is broken") from None


def fields_of(form: FormData, request: type[Request]) -> dict[str, Any]:
    """Return the text parts as fields; what is not text in the schema is JSON."""
    texts = text_fields(request)
    found: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in found:
            raise MalformedRequest(f"the part {name[:64]!r} is given twice")
        if isinstance(value, str):
            text = name in texts or name not in request.model_fields
            found[name] = value if text else number(name, value)
    return found


def number(name: str, text: str) -> object:
    """Read a number, list or null that came as text."""
    try:
        return strict_json.loads(text.encode("utf-8", "surrogatepass"))
    except MalformedRequest:
        return text  # the field's own check will say what it must be
    except RecursionError:
        raise MalformedRequest(f"the part {name[:64]!r} is nested too deep") from None


@cache
def text_fields(request: type[Request]) -> frozenset[str]:
    """Return the fields that take text as it is, by the schema that callers see."""
    properties = request.model_json_schema()["properties"]
    return frozenset(
        name
        for name, field in properties.items()
        if any(o.get("type") == "string" for o in (field, *field.get("anyOf", ())))
    )


async def files_of(form: FormData) -> dict[str, bytes]:
    """Return the file parts' bytes; names that their senders gave are not used."""
    found: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name in found:
                raise MalformedRequest(f"the part {name[:64]!r} is given twice")
            found[name] = await value.read()
            await value.close()
    return found


def too_large(max_bytes: int) -> PayloadTooLarge:
    """Return the refusal of a body that is over its limit."""
    return PayloadTooLarge(f"the body is over {max_bytes // 2**20} MiB")

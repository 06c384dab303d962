"""What the OpenAPI document says of bodies that routes build or read by themselves."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from common.job import Status
from common.request import Request
from common.service import Service

REF = "#/components/schemas/{model}"


def ref(model: type[BaseModel]) -> dict[str, str]:
    """Return a reference to a model's schema in the document."""
    return {"$ref": REF.format(model=model.__name__)}


class ProgressView(BaseModel):
    """How far a run is, over the whole graph."""

    value: float = Field(ge=0, le=1, description="Never goes back.")
    stage: str = Field(
        description="downloading, verifying: a queued job's weights are on their way."
    )
    step: int | None
    steps: int | None
    node: str | None
    eta_s: float | None
    done_bytes: int | None = Field(description="Of the weights that are fetched.")
    total_bytes: int | None


class OutputView(BaseModel):
    """A file that is whole and was checked."""

    name: str
    kind: Literal["video", "image"]
    content_type: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    frames: int | None
    fps: float | None
    duration_s: float | None
    audio: bool
    url: str
    poster_url: str | None


class JobErrorView(BaseModel):
    """Why a job failed, and what to do."""

    code: str
    message: str
    hint: str | None
    node: str | None
    retryable: bool


class TimingsView(BaseModel):
    """Seconds."""

    queue_s: float | None
    run_s: float | None
    total_s: float | None
    nodes: dict[str, float]


class UrlsView(BaseModel):
    """Where to go on, relative to the service."""

    self: str
    events: str
    cancel: str


class JobView(BaseModel):
    """A job."""

    id: str
    job_id: str
    service: str
    engine: Literal["comfyui", "embedded", "nunchaku"]
    status: Status
    queue_position: int | None
    attempt: int
    priority: int
    progress: ProgressView
    request: dict[str, Any]
    created_at: str
    started_at: str | None
    completed_at: str | None
    expires_at: str | None
    outputs: list[OutputView]
    error: JobErrorView | None
    timings: TimingsView
    urls: UrlsView


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next_cursor: str | None


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str
    hint: str | None = None


class Problem(BaseModel):
    """Any refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldProblem]
    request_id: str


class UploadView(BaseModel):
    """A stored file; its id is taken wherever a file is."""

    id: str
    kind: str
    content_type: str
    size_bytes: int
    width: int | None
    height: int | None
    duration_s: float | None


PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "Refused; nothing was stored.",
        "content": {"application/problem+json": {"schema": ref(Problem)}},
    }
}


def document(app: FastAPI, request: type[Request], root: str = "") -> dict[str, Any]:
    """
    Return the OpenAPI document: what the framework finds, and what it cannot see.

    `root` is the path that a proxy serves us under.
    """
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=[{"url": root}] if root else None,
        )
        _, models = models_json_schema(
            [(Problem, "serialization"), (request, "validation")], ref_template=REF
        )
        parts = found.setdefault("components", {})
        raise_marks(models["$defs"][request.__name__])
        add_aliases(models["$defs"][request.__name__], request)
        parts.setdefault("schemas", {}).update(models["$defs"])
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        # {}: on this machine alone, a service may ask for no key.
        found["security"] = [{"bearer": []}, {"header": []}, {}]
        app.openapi_schema = found
    return app.openapi_schema


def request_body(service: Service) -> dict[str, Any]:
    """Return the OpenAPI of the body: JSON, or multipart with files as parts."""
    request = service.request
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": ref(request),
                    "examples": examples(request),
                },
                "multipart/form-data": {"schema": multipart(request)},
            },
        }
    }


def multipart(request: type[Request]) -> dict[str, Any]:
    """Return the schema with binary parts where files go."""
    schema = request.model_json_schema(ref_template=REF)
    schema.pop("$defs", None)  # they are among the document's components
    raise_marks(schema)
    for name in request.media_fields():
        schema["properties"][name] = {"type": "string", "format": "binary"}
    add_aliases(schema, request)
    return schema


def raise_marks(schema: dict[str, Any]) -> None:
    """Say of an optional field what is said of its type; forms look at the field."""
    for field in schema["properties"].values():
        for kind in field.get("anyOf", ()):
            for name in ("description", "x-ui"):
                if name in kind:
                    field.setdefault(name, kind.pop(name))


def add_aliases(schema: dict[str, Any], request: type[Request]) -> None:
    """Let in the other names of fields, which forms do not show."""
    fields = schema["properties"]
    for alias, name in request.aliases.items():
        shown = {k: v for k, v in fields[name].items() if k not in ("x-ui", "title")}
        about = {"description": f"Another name of `{name}`.", "deprecated": True}
        fields[alias] = shown | about


def examples(request: type[Request]) -> dict[str, Any]:
    """Return a small request, and one that starts from a picture; what is required."""
    fields = request.model_fields
    prompt = (fields["prompt"].examples or [""])[0]
    if "audio" in fields:
        speech = {
            "image": "https://example.com/face.png",
            "audio": "https://example.com/speech.mp3",
            "prompt": prompt,
        }
        return {"speech": {"summary": "From a picture and speech", "value": speech}}
    found = {"text": {"summary": "From a prompt", "value": {"prompt": prompt}}}
    if "image" in fields:
        picture = "https://example.com/picture.png"
        value = {"prompt": prompt, "image": picture, "seed": 42}
        found["image"] = {"summary": "From a picture", "value": value}
        if fields["image"].is_required():
            del found["text"]
    return found

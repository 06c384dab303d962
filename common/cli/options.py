"""
Command line options from a request class: one for each field, with its help.

Nothing is repeated by hand: name, type, range, default and words come from the JSON
schema, which is also the API's.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import typer.main
from typer.core import TyperCommand

from common.cli.screen import PLAIN, WRONG_USE, Stop
from common.client import Client
from common.request import Request
from common.service import Service

Schema = dict[str, Any]

TYPES: dict[str, type] = {"integer": int, "number": float, "boolean": bool}

# By widget.
FILES = {
    "image": "A PNG, JPEG or WebP file",
    "audio": "A WAV, MP3, M4A, Opus or Ogg file",
}

# What the service takes as it is; all else is a path on this machine.
_REMOTE = re.compile(r"(https?:|data:)|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def command(
    service: Service, run: Callable[..., None], about: str, epilog: str
) -> TyperCommand:
    """
    Return `run(fields=…, OPTIONS)` as a command of one service.

    `fields` holds what was given of the request's own options, by field.
    """
    own = [
        one
        for one in inspect.signature(run, eval_str=True).parameters.values()
        if one.name != "fields"
    ]
    fields = parameters(service.request)

    def call(**values: Any) -> None:
        given = {one.name: values.pop(one.name) for one in fields}
        used = {name: value for name, value in given.items() if value is not None}
        run(fields=used, **values)

    call.__signature__ = inspect.Signature([*own, *fields])  # type: ignore[attr-defined]
    app = typer.Typer(**PLAIN)
    app.command(service.name, help=about, epilog=epilog)(call)
    made = typer.main.get_command(app)
    assert isinstance(made, TyperCommand)
    return made


def parameters(request: type[Request]) -> list[inspect.Parameter]:
    """Return a parameter for each field but the prompt, which is an argument."""
    schema = request.model_json_schema()
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_option(name, field, schema, name in request.media_fields()),
        )
        for name, field in schema["properties"].items()
        if name != "prompt" and not {**field, **_kind(field)}.get("readOnly")
    ]


def values(
    request: type[Request], given: Mapping[str, Any], client: Client
) -> dict[str, Any]:
    """
    Return options as the request's fields; files of this machine are uploaded.

    Raises:
        Stop: naming the option that does not fit.
    """
    media = request.media_fields()
    schema = request.model_json_schema()
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in media:
            found[name] = _file(name, value, client)
        elif _members(schema["properties"][name], schema):
            found[name] = [_named(name, text) for text in value]
        else:
            found[name] = value
    return found


def flag(name: str, *, many: bool = False) -> str:
    """
    Return a field's option.

    >>> flag("negative_prompt"), flag("loras", many=True)
    ('--negative-prompt', '--lora')
    """
    return "--" + (name.removesuffix("s") if many else name).replace("_", "-")


def explain(field: Schema, *, file: bool = False) -> str:
    """Return a field's help: what it is, its range and its default."""
    kind = _kind(field)
    text = field.get("description") or kind.get("description", "")
    if file:
        widget = {**kind, **field}.get("x-ui", {}).get("widget")
        text = f"{FILES.get(widget, FILES['image'])}, an http(s) URL or an upload id."
    default = field.get("default")
    choices = ", ".join(kind.get("enum", ()))
    facts = [
        f"one of {choices}" if choices else "",
        _range(kind),
        "" if default is None else f"default {default}",
    ]
    said = "; ".join(filter(None, facts))
    return f"{text} {said[:1].upper()}{said[1:]}.".lstrip() if said else text


def _option(name: str, field: Schema, schema: Schema, file: bool) -> Any:
    many = _members(field, schema)
    metavar: str | None = None
    spelled = flag(name, many=many)
    annotation: Any = TYPES.get(_kind(field).get("type", ""), str)
    if many:
        annotation, metavar = list[str], "NAME[:STRENGTH]"
    elif choices := _kind(field).get("enum"):
        annotation, metavar = Literal[tuple(choices)], "NAME"
    elif file:
        metavar = "FILE|URL"
    elif annotation is bool:
        spelled += f"/--no-{spelled.removeprefix('--')}"
    option = typer.Option(
        spelled,
        help=explain(field, file=file),
        metavar=metavar,
        show_default=False,
    )
    return Annotated[annotation | None, option]


def _kind(field: Schema) -> Schema:
    """Return the part of a field's schema that is not null."""
    options = [one for one in field.get("anyOf", ()) if one.get("type") != "null"]
    return options[0] if options else field


def _members(field: Schema, schema: Schema) -> bool:
    """Tell whether a field is a list of things with a name and a strength."""
    reference = _kind(field).get("items", {}).get("$ref", "")
    item = schema.get("$defs", {}).get(reference.rpartition("/")[2], {})
    return {"name", "strength"} <= set(item.get("properties", {}))


def _range(kind: Schema) -> str:
    """
    Return a range in words.

    >>> _range({"minimum": 256, "maximum": 1280, "multipleOf": 32})
    '256 to 1280 in steps of 32'
    """
    low, above = kind.get("minimum"), kind.get("exclusiveMinimum")
    high, step = kind.get("maximum"), kind.get("multipleOf")
    start = f"above {above}, up to" if above is not None else f"{low} to"
    if high is None or (low is None and above is None):
        return ""
    return f"{start} {high}" + (f" in steps of {step}" if step else "")


def _file(name: str, value: str, client: Client) -> str:
    if _REMOTE.match(value):
        return value
    path = Path(value).expanduser()
    if not path.is_file():
        raise Stop(f"{flag(name)}: there is no file {value}", code=WRONG_USE)
    upload_id: str = client.upload(path)["id"]
    return upload_id


def _named(name: str, text: str) -> dict[str, Any]:
    item, colon, strength = text.rpartition(":")
    if not colon:
        return {"name": text}
    try:
        return {"name": item, "strength": float(strength)}
    except ValueError:
        option = flag(name, many=True)
        raise Stop(
            f"{option}: the strength in {text!r} is no number",
            f"write {option} NAME or {option} NAME:0.8",
            WRONG_USE,
        ) from None

"""A request's fields as a Markdown table, for the README of a service. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.request import Request


def field_table(request: type[Request]) -> str:
    """Return one row for each field: name, what it takes, default, meaning."""
    schema = request.model_json_schema()
    required = set(schema.get("required", ()))
    rows = ["| field | takes | default | |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        inner = {**_inner(field), **field}
        if inner.get("readOnly"):  # the service's own: said in jobs, not asked for
            continue
        default = "required" if name in required else _default(inner)
        rows.append(
            f"| `{name}` | {takes(inner)} | {default} | {inner['description']} |"
        )
    return "\n".join(rows)


def takes(field: Mapping[str, Any]) -> str:
    """Return what a field takes, with its range and unit."""
    if choices := field.get("enum"):
        return ", ".join(f"`{choice}`" for choice in choices)
    match field.get("type"):
        case "integer" | "number" as kind:
            unit = field.get("x-ui", {}).get("unit")
            words = [_range(field), f"multiples of {s}" if (s := _step(field)) else ""]
            words += [unit or "", "" if kind == "number" else "whole"]
            return ", ".join(filter(None, words))
        case "string":
            if field.get("maxLength"):
                return f"text, up to {field['maxLength']} characters"
            return "a recording" if _widget(field) == "audio" else "a picture"
        case "boolean":
            return "`true` or `false`"
        case "array":
            return f"a list of up to {field.get('maxItems')}"
    return ""


def _inner(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema beside null in an optional field."""
    options: list[Mapping[str, Any]] = field.get("anyOf", [])
    return next((o for o in options if o.get("type") != "null"), {})


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value is None or value == []:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _widget(field: Mapping[str, Any]) -> str:
    widget: str = field.get("x-ui", {}).get("widget", "")
    return widget


def _step(field: Mapping[str, Any]) -> int | None:
    step: int | None = field.get("multipleOf")
    return step


def _range(field: Mapping[str, Any]) -> str:
    least, most = field.get("minimum"), field.get("maximum")
    if least is None:
        return f"above {field['exclusiveMinimum']:g}, up to {most:g}"
    if most is not None and most >= 2**53 - 1:
        return f"{least} to 2^53 - 1"
    return f"{least:g} to {most:g}"

"""
A request: a pydantic class whose fields say where in the workflow they go.

Pure. The class is the API, its JSON schema, the CLI's options and the form in the
Studio; nothing about a field is repeated anywhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from common.errors import FieldError, InvalidInput
from common.job import Expected
from common.workflow import Workflow


@dataclass(frozen=True)
class Patch:
    """A field goes to this input of the node with this title."""

    title: str
    input: str


@dataclass(frozen=True)
class Media:
    """Marks a field that holds a file: an upload id once the request is accepted."""

    kind: str  #: "image" or "audio"


@dataclass(frozen=True)
class MediaInput:
    """A file that has to be handed to ComfyUI before the workflow runs."""

    field: str
    upload_id: str
    title: str
    input: str


class Request(BaseModel, ABC):
    """
    Base of each service's request.

    None means "leave what the workflow has". Types are strict: `"81"` and `true` are
    no numbers. Unknown fields are refused, so that a typo is not silently ignored.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False
    )

    @classmethod
    def accept(cls, fields: Mapping[str, object]) -> Self:
        """
        Build a request from a caller's fields.

        Raises:
            InvalidInput: with one `FieldError` for each field that is refused.
        """
        try:
            request = cls.model_validate(fields)
        except ValidationError as error:
            raise refusal(error) from None
        if problems := list(request.problems()):
            raise refused(problems)
        return request.settled()

    def problems(self) -> Iterable[FieldError]:
        """Return what is wrong between the fields; services override this."""
        return ()

    def settled(self) -> Self:
        """Return the request with what was left open decided, such as the seed."""
        return self

    @classmethod
    @cache
    def patches(cls) -> tuple[tuple[str, Patch], ...]:
        """Return (field, patch) for each place that a field is written to."""
        return tuple(
            (name, mark)
            for name, field in cls.model_fields.items()
            for mark in marks(field.metadata, field.annotation)
            if isinstance(mark, Patch)
        )

    @classmethod
    @cache
    def media_fields(cls) -> dict[str, Media]:
        """Return the fields that hold files."""
        return {
            name: mark
            for name, field in cls.model_fields.items()
            for mark in marks(field.metadata, field.annotation)
            if isinstance(mark, Media)
        }

    def apply(self, workflow: Workflow) -> Workflow:
        """
        Return a copy of `workflow` with every given field in its place.

        Services override this for what a table cannot say; it must stay pure.
        """
        patched = workflow.copy()
        for name, patch in self.patches():
            value = getattr(self, name)
            if value is not None:
                patched.patch(patch.title, patch.input, value)
        return patched

    def media(self) -> tuple[MediaInput, ...]:
        """Return the files this request refers to, and where their names go."""
        files = self.media_fields()
        return tuple(
            MediaInput(name, getattr(self, name), patch.title, patch.input)
            for name, patch in self.patches()
            if name in files and getattr(self, name) is not None
        )

    @classmethod
    @abstractmethod
    def expected(cls, accepted: Mapping[str, Any]) -> Expected:
        """Return what the output of an accepted request must turn out to be."""

    @classmethod
    def check(cls, workflow: Workflow) -> None:
        """
        Check at start that each patch lands.

        Raises:
            WorkflowMismatch: naming the title or input that is missing or double.
        """
        for _, patch in cls.patches():
            workflow.inputs(patch.title, patch.input)


def marks(metadata: list[Any], annotation: object) -> Iterator[object]:
    """Yield what `Annotated` carries, also inside `Annotated[T, …] | None`."""
    yield from metadata
    for argument in get_args(annotation):
        yield from getattr(argument, "__metadata__", ())


def refusal(error: ValidationError) -> InvalidInput:
    """Say pydantic's findings in the caller's terms, without echoing any value."""
    details = error.errors(include_url=False, include_context=True, include_input=False)
    return refused([FieldError(path(d), words(d), hint(d)) for d in details])


def refused(errors: Sequence[FieldError]) -> InvalidInput:
    """Return one refusal that names the first finding and lists up to 20."""
    first = errors[0]
    where = f"{first.field}: " if first.field else ""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidInput(f"{where}{first.message}{more}", errors=errors[:20])


def path(details: ErrorDetails) -> str:
    """Return where a finding is, as "loras.0.name"; long unknown keys are cut."""
    return ".".join(str(part)[:64] for part in details["loc"])


def words(details: ErrorDetails) -> str:
    """Return the finding in words a caller can act on."""
    match details["type"]:
        case "extra_forbidden":
            return "there is no such field"
        case "missing":
            return "this field is required"
        case "value_error":
            return str(details["ctx"]["error"])
    return details["msg"][:1].lower() + details["msg"][1:]


def hint(details: ErrorDetails) -> str | None:
    """Return what to send instead, where the finding says it."""
    if details["type"] == "extra_forbidden":
        return "GET /openapi.json lists the fields"
    error = details.get("ctx", {}).get("error")
    return getattr(error, "hint", None)


class Refused(ValueError):
    """A validator's refusal that also says what to send instead."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

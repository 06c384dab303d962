"""
A request: a pydantic class whose fields say where in the workflow they go.

Pure but for the seed it draws. The class is the API, its JSON schema, the CLI's options
and the form in the Studio; nothing about a field is repeated anywhere else.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from common.errors import FieldError, InvalidInput, ServiceError
from common.job import Expected
from common.workflow import Workflow

T = TypeVar("T")

#: An upload id in the place of a file that is not looked at.
STAND_IN = "00000000-0000-0000-0000-000000000000"


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
    kind: str = "image"


@dataclass(frozen=True)
class MediaFacts:
    """What is known of a file once it was decoded."""

    width: int | None = None  #: pixels
    height: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class Variant:
    """A workflow of its own for requests that leave some fields out."""

    file: str  #: beside the wrapper
    title: str  #: what it makes, such as "text-to-video"
    without: tuple[str, ...]  #: fields it has no place for; the first one avoids it


class Request(BaseModel, ABC):
    """
    Base of each service's request.

    None means "leave what the workflow has". Types are strict: `"81"` and `true` are
    no numbers. Unknown fields are refused, so that a typo is not silently ignored.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False
    )

    aliases: ClassVar[Mapping[str, str]] = {}  #: other names of fields
    variants: ClassVar[tuple[Variant, ...]] = ()

    @classmethod
    def accept(cls, fields: Mapping[str, object]) -> Self:
        """
        Build a request from a caller's fields.

        Raises:
            InvalidInput: with one `FieldError` for each field that is refused.
        """
        own, said = cls.by_name(fields)
        with as_said(said):
            try:
                request = cls.model_validate(own)
            except ValidationError as error:
                raise refusal(error) from None
            if problems := list(request.problems()):
                raise refused(problems)
            return request.settled()

    @classmethod
    def by_name(cls, given: Mapping[str, T]) -> tuple[dict[str, T], dict[str, str]]:
        """
        Return what was given under the fields' own names, and the aliases by field.

        Raises:
            InvalidInput: a field is given under both of its names.
        """
        own, said = dict(given), {}
        for alias, name in cls.aliases.items():
            if own.get(alias) is None:
                own.pop(alias, None)
                continue
            if own.get(name) is not None:
                raise InvalidInput.of(
                    alias, f"is another name of {name}, which is given too", "send one"
                )
            own[name], said[name] = own.pop(alias), alias
        return own, said

    def problems(self) -> Iterable[FieldError]:
        """Return what is wrong between the fields; services override this."""
        return ()

    def settled(self) -> Self:
        """Return the request with what was left open decided, such as its seed."""
        if getattr(self, "seed", 0) is not None:
            return self
        return self.model_copy(update={"seed": draw_seed()})

    def fitted(self, media: Mapping[str, MediaFacts]) -> Self:
        """
        Return the request with what follows from its files, such as a clip's length.

        `media` has an entry for each field that holds a file. Services override this.

        Raises:
            InvalidInput: the files do not suit each other or the request.
        """
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

    def variant(self) -> Variant | None:
        """Return which of `variants` this request is for; None = the main workflow."""
        return None

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
            MediaInput(
                name, getattr(self, name), patch.title, patch.input, files[name].kind
            )
            for name, patch in self.patches()
            if name in files and getattr(self, name) is not None
        )

    @classmethod
    @abstractmethod
    def expected(cls, accepted: Mapping[str, Any]) -> Expected:
        """Return what the output of an accepted request must turn out to be."""

    @classmethod
    def check(cls, workflow: Workflow, variant: Variant | None = None) -> None:
        """
        Check at start that each patch lands.

        Raises:
            WorkflowMismatch: naming the title or input that is missing or double.
        """
        without = variant.without if variant else ()
        for name, patch in cls.patches():
            if name not in without:
                workflow.inputs(patch.title, patch.input)


@contextmanager
def as_said(said: Mapping[str, str]) -> Iterator[None]:
    """Name the fields of a refusal as the caller did: {field: alias}."""
    try:
        yield
    except ServiceError as error:
        field, colon, rest = error.detail.partition(": ")
        error.detail = said.get(field, field) + colon + rest
        error.errors = tuple(
            replace(one, field=said.get(one.field, one.field)) for one in error.errors
        )
        raise


def draw_seed() -> int:
    """Draw a seed; 32 bits, so that it can be read out and typed in again."""
    return secrets.randbelow(2**32)


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

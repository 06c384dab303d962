"""
Everything a caller can be told went wrong, as one tree.

* ServiceError               500  internal
  + MalformedRequest         400  malformed_request
  + Unauthorized             401  unauthorized
  + ForbiddenOrigin          403  forbidden_origin
  + NotFound                 404  not_found
  + MethodNotAllowed         405  method_not_allowed
  + RequestTimeout           408  request_timeout
  + IdempotencyConflict      409  idempotency_conflict
  + PayloadTooLarge          413  payload_too_large
  + UnsupportedMediaType     415  unsupported_media_type
  + RangeNotSatisfiable      416  range_not_satisfiable
  + MisdirectedRequest       421  misdirected_request
  + InvalidInput             422  invalid_input
    - InputUnreachable       422  input_unreachable
    - UnknownLora            422  unknown_lora
  + QueueFull                429  queue_full
  + RateLimited              429  rate_limited
  + NoSpace                  503  no_space
  + ShuttingDown             503  shutting_down
  + StoreUnavailable         503  store_unavailable

A job that fails is not in this tree: it is a job with a `JobError` (see `common.job`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of the request, in the caller's own terms."""

    field: str  #: dotted path such as "image" or "loras.0.name"; "" = the whole body
    message: str
    hint: str | None = None  #: what to send instead

    def as_dict(self) -> dict[str, str]:
        """Return the JSON shape, without an absent hint."""
        body = {"field": self.field, "message": self.message}
        return body if self.hint is None else body | {"hint": self.hint}


class ServiceError(Exception):
    """
    Base class of our errors.

    `code` is for programs and never changes; the message is for people and says what
    to do. It is shown to callers as it is: no paths, no secrets, no tracebacks.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s


class MalformedRequest(ServiceError):
    """The body cannot be read: not JSON, duplicate keys, NaN, too deep, not UTF-8."""

    code = "malformed_request"
    status = 400
    title = "Malformed request"


class Unauthorized(ServiceError):
    """No API key, or one we do not know."""

    code = "unauthorized"
    status = 401
    title = "Unauthorized"


class ForbiddenOrigin(ServiceError):
    """A web page of another origin sent this."""

    code = "forbidden_origin"
    status = 403
    title = "Origin not allowed"


class NotFound(ServiceError):
    """There is no such thing, or it belongs to another key."""

    code = "not_found"
    status = 404
    title = "Not found"


class MethodNotAllowed(ServiceError):
    """The address exists, but not for this method."""

    code = "method_not_allowed"
    status = 405
    title = "Method not allowed"


class RequestTimeout(ServiceError):
    """The body came too slowly."""

    code = "request_timeout"
    status = 408
    title = "Request timeout"


class IdempotencyConflict(ServiceError):
    """The key was used with another body."""

    code = "idempotency_conflict"
    status = 409
    title = "Idempotency key reused"


class PayloadTooLarge(ServiceError):
    """The body, a part or a fetched file is over its limit."""

    code = "payload_too_large"
    status = 413
    title = "Payload too large"


class UnsupportedMediaType(ServiceError):
    """A body or a file is of a kind that we do not read."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class RangeNotSatisfiable(ServiceError):
    """The asked range lies outside the file."""

    code = "range_not_satisfiable"
    status = 416
    title = "Range not satisfiable"


class MisdirectedRequest(ServiceError):
    """The Host header names a server that we are not."""

    code = "misdirected_request"
    status = 421
    title = "Misdirected request"


class InvalidInput(ServiceError):
    """A field has a value that we refuse; `errors` names each."""

    code = "invalid_input"
    status = 422
    title = "Invalid input"

    @classmethod
    def of(cls, field: str, message: str, hint: str | None = None) -> InvalidInput:
        """Refuse one field."""
        return cls(f"{field}: {message}", errors=[FieldError(field, message, hint)])


class InputUnreachable(InvalidInput):
    """A URL among the inputs is refused, or does not answer with what we need."""

    code = "input_unreachable"
    title = "Input unreachable"


class UnknownLora(InvalidInput):
    """A LoRA is not among the installed ones."""

    code = "unknown_lora"
    title = "Unknown LoRA"


class QueueFull(ServiceError):
    """As many jobs wait as are allowed to."""

    code = "queue_full"
    status = 429
    title = "Queue full"


class RateLimited(ServiceError):
    """Too many requests, streams or uploads at once."""

    code = "rate_limited"
    status = 429
    title = "Too many requests"


class NoSpace(ServiceError):
    """The disk that holds the data folder is full."""

    code = "no_space"
    status = 503
    title = "No space left"


class ShuttingDown(ServiceError):
    """The service is draining; another instance, or this one later, will answer."""

    code = "shutting_down"
    status = 503
    title = "Shutting down"


class StoreUnavailable(ServiceError):
    """The database does not answer."""

    code = "store_unavailable"
    status = 503
    title = "Store unavailable"

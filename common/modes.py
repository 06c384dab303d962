"""
Modes: the kinds of request that a service takes, and the weights that each loads.

Pure, and nothing is declared for it. A mode is one choice of the fields that may hold a
file and of the switches; the plainest request that makes this choice is applied to its
workflow, and what the graph then loads is what the mode needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from common.errors import InvalidInput
from common.request import STAND_IN, MediaFacts, Request

if TYPE_CHECKING:
    from common.service import Service

#: Of the plainest file: what is asked of a volume does not depend on it.
PLAIN = MediaFacts(width=64, height=64, duration_s=1.0)


@dataclass(frozen=True)
class Mode:
    """One kind of request."""

    given: Mapping[str, bool]  #: by field: it holds a file, or is switched on
    usual: bool  #: every switch is as it is by default
    weights: Mapping[str, tuple[str, str]]  #: {file: (class_type, input)}


def modes(service: Service) -> tuple[Mode, ...]:
    """Return a service's modes; those of its main workflow come first."""
    found = list(_modes(service))
    return tuple(
        mode for main in (True, False) for is_main, mode in found if is_main is main
    )


def given(request: Request) -> dict[str, bool]:
    """Return which of the fields that tell modes apart a request gives."""
    return {name: bool(getattr(request, name)) for name in _choices(type(request))}


def lacking(
    modes: tuple[Mode, ...], absent: frozenset[str]
) -> tuple[frozenset[str], dict[str, str]]:
    """
    Return the absent files without which nothing works, and what the others are for.

    While one mode works, no file is needed. When none does, it is those of the mode
    that lacks least, among those whose switches nobody touched. The others' text
    reads "requests with a and without b".
    """
    least = min(modes, key=lambda mode: (not mode.usual, len(absent & {*mode.weights})))
    works = any(absent.isdisjoint(mode.weights) for mode in modes)
    needed = frozenset() if works else absent & {*least.weights}
    loaded = [file for mode in modes for file in mode.weights if file in absent]
    return needed, {
        file: _users(file, modes)
        for file in dict.fromkeys(loaded)
        if file not in needed
    }


def wanted_by(file: str, modes: tuple[Mode, ...]) -> str:
    """Return which requests load a file: "requests with a and without b"."""
    using = [mode for mode in modes if file in mode.weights]
    if len(using) == len(modes):
        return "every request"
    words = _users(file, modes) if using else ""
    return words if words.removeprefix("requests ") else "some requests"


def _modes(service: Service) -> Iterator[tuple[bool, Mode]]:
    cls = service.request
    media, fields = cls.media_fields(), cls.model_fields
    plain: dict[str, object] = {
        name: STAND_IN if name in media else "-"
        for name, field in fields.items()
        if field.is_required()
    }
    choices = _choices(cls)
    for values in product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        files = {name for name in media if chosen.get(name) or name in plain}
        switches = {name: on for name, on in chosen.items() if name not in media}
        asked = {**plain, **dict.fromkeys(files, STAND_IN), **switches}
        try:
            request = cls.accept(asked).fitted(dict.fromkeys(files, PLAIN))
        except InvalidInput:  # these fields do not go together
            continue
        usual = all(fields[name].default == on for name, on in switches.items())
        mode = Mode(chosen, usual, service.apply(request).weights())
        yield request.variant() is None, mode


def _choices(cls: type[Request]) -> dict[str, tuple[bool, bool]]:
    """Return the values of the fields that tell modes apart, the default one first."""
    media = cls.media_fields()
    return {
        name: (field.default is True, field.default is not True)
        for name, field in cls.model_fields.items()
        if not field.is_required()
        and (name in media or isinstance(field.default, bool))
    }


def _users(file: str, modes: tuple[Mode, ...]) -> str:
    """Return which requests load a file, by the fields that all of them share."""
    using = [mode for mode in modes if file in mode.weights]
    shared = {
        name: on
        for name, on in using[0].given.items()
        if all(mode.given[name] is on for mode in using)
        and any(mode.given[name] is not on for mode in modes)
    }
    given = " and ".join(name for name, on in shared.items() if on)
    left_out = " or ".join(name for name, on in shared.items() if not on)
    words = [given and f"with {given}", left_out and f"without {left_out}"]
    return "requests " + " and ".join(filter(None, words))

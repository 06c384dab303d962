"""
LoRAs by name: the installed file that a name means, and the other half of a pair.

Pure. Wan 2.2's 14B models come as two that share the steps: one for high noise, one for
low. A LoRA for them is often two files whose names differ in that word only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import NamedTuple

from common.errors import UnknownLora
from common.fields import Lora, PairedLora
from common.workflow import Workflow

SUFFIX = ".safetensors"

# "high_noise", "HighNoise", "high-noise_model", "-HIGH-", "_h": a word of its own. A
# capital begins a word too; a single letter must stand free.
_MARK = re.compile(
    r"(?:(?<![A-Za-z])(?:high|low)|(?<![A-Z])(?:High|HIGH|Low|LOW))(?=noise|[^a-z]|$)"
    r"|(?<![A-Za-z0-9])[hHlL](?![A-Za-z0-9])"
)
_OTHER = {"high": "low", "low": "high", "h": "l", "l": "h"}


class Pair(NamedTuple):
    """The files for the two models."""

    high: str
    low: str


def with_files(lora: Lora, installed: Iterable[str] | None, field: str) -> Lora:
    """
    Return a LoRA of a request with the files that it means.

    Raises:
        UnknownLora: naming the part of `field`; the hint lists near names.
    """
    name = lookup(lora.name, installed, f"{field}.name")
    if not isinstance(lora, PairedLora):
        return lora.model_copy(update={"name": name})
    if lora.name_low is None:
        high, low = pair_of(name, installed)
    else:
        high, low = name, lookup(lora.name_low, installed, f"{field}.name_low")
    strength = lora.strength if lora.strength_low is None else lora.strength_low
    return lora.model_copy(
        update={"name": high, "name_low": low, "strength_low": strength}
    )


def insert(workflow: Workflow, title: str, file: str, strength: float) -> None:
    """Put a LoRA before a node's `model`, behind those that are there; 0 is none."""
    if strength != 0:
        workflow.splice(
            title,
            "model",
            "LoraLoaderModelOnly",
            lora_name=file,
            strength_model=strength,
        )


def lookup(name: str, installed: Iterable[str] | None, field: str) -> str:
    """
    Return the one installed file that `name` means, with or without its suffix.

    Only safetensors: the other kinds that ComfyUI lists run code when they are loaded.
    While no engine answers (None), the name is ComfyUI's to judge.

    Raises:
        UnknownLora: none; the hint lists near names.
    """
    if installed is None:
        return name.removesuffix(SUFFIX) + SUFFIX
    there = _by_key(installed)
    if found := there.get(_key(name)):
        return found
    near = get_close_matches(_key(name), there, n=3, cutoff=0.5)
    names = [there[one] for one in near] or list(there.values())[:10]
    hint = ("did you mean " if near else "installed: ") + ", ".join(names)
    raise UnknownLora.of(field, "no such LoRA is installed", hint)


def pair_of(file: str, installed: Iterable[str] | None) -> Pair:
    """
    Return the files for the high-noise and the low-noise model, given one of them.

    A file without another half among those installed is meant for both models. While no
    engine answers (None), the other half is taken to be there: ComfyUI will say.
    """
    there = None if installed is None else _by_key(installed)
    for other, is_high in _others(file.removesuffix(SUFFIX)):
        found = other + SUFFIX if there is None else there.get(_key(other))
        if found:
            return Pair(file, found) if is_high else Pair(found, file)
    return Pair(file, file)


def _others(stem: str) -> Iterator[tuple[str, bool]]:
    """Yield (what the other half may be called, whether `stem` is the high one)."""
    marks = list(_MARK.finditer(stem))
    for mark in reversed(marks):  # the last word first: "low-poly_high_noise"
        swapped = stem[: mark.start()] + _swap(mark) + stem[mark.end() :]
        yield swapped, mark[0][0] in "hH"
    if len({mark[0][0].lower() for mark in marks}) == 1:  # "high/style_high"
        yield _MARK.sub(_swap, stem), marks[0][0][0] in "hH"


def _swap(mark: re.Match[str]) -> str:
    word = _OTHER[mark[0].lower()]
    if mark[0].isupper():
        return word.upper()
    return word.capitalize() if mark[0][0].isupper() else word


def _by_key(installed: Iterable[str]) -> dict[str, str]:
    return {_key(file): file for file in installed if file.endswith(SUFFIX)}


def _key(name: str) -> str:
    """Return what names are compared by: no suffix, slashes, lower case."""
    return name.removesuffix(SUFFIX).replace("\\", "/").lower()

"""
Do manifest, lock, services and publishers agree?

Offline: every file that a service's workflows load is in the manifest, in the folder in
which its loader looks. Online: every source is asked what it has, and nothing is
fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from common.manifest import Manifest
from common.manifest_schema import WeightFile
from common.models.errors import AuthNeeded, Missing, ModelsError
from common.models.needs import models, needs
from common.models.sources import Address, NotThere, Source, SourceConfig, sources_of
from common.service import Service

ASKED_AT_ONCE = 8

Outcome = Literal["same", "there", "differs", "absent", "auth", "unreachable"]


@dataclass(frozen=True)
class Check:
    """One file, or model, that a service loads."""

    service: str
    what: str  #: "vae/x.safetensors", or a model's id
    problem: str | None  #: None = the manifest has it, there
    hint: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """
    What one source says of one file.

    "same": size, or sha256, as the manifest has it. "there": it is, and neither is
    known to compare.
    """

    file: str
    source: str  #: its label
    outcome: Outcome
    detail: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def checks(manifest: Manifest, services: Iterable[Service]) -> Iterator[Check]:
    """Yield what each service loads, and whether the manifest has it."""
    for service in services:
        for need in needs(service):
            place = f"{need.folder}/{need.name}".lstrip("/")
            try:
                manifest.file(need.name, need.folder or None)
            except Missing as error:
                yield _misplaced(manifest, service.name, place, need.name, error)
            else:
                yield Check(service.name, place, None)
        for id_ in models(service):
            known = id_ in manifest.models
            problem = None if known else f"{manifest.name} has no model {id_}"
            yield Check(service.name, id_, problem)


def _misplaced(
    manifest: Manifest, service: str, place: str, name: str, error: Missing
) -> Check:
    elsewhere = [file.path for file in manifest.files if file.name == name]
    if elsewhere:
        problem = f"its loader looks in {place}, the manifest puts it at {elsewhere[0]}"
        return Check(service, place, problem, "correct its folder in the manifest")
    return Check(service, place, error.message, error.hint)


def ask(files: Iterable[WeightFile], config: SourceConfig) -> list[Answer]:
    """Ask each source of each file what it has; nothing is fetched."""
    pairs = [(file, one) for file in files for one in sources_of(file, config)]
    # Caches and mirrors need not have what a publisher has.
    pairs = [(f, one) for f, one in pairs if one.label in f.sources]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return list(pool.map(lambda pair: _ask(*pair), pairs))


def _ask(file: WeightFile, source: Source) -> Answer:
    try:
        there = source.resolve()
        size = there.stat().st_size if isinstance(there, Path) else there.size
    except ModelsError as error:
        return Answer(file.path, source.label, _outcome(error), error.message)
    except OSError as error:
        return Answer(file.path, source.label, "absent", error.strerror)
    sha256 = there.sha256 if isinstance(there, Address) else None
    if None not in (size, file.size) and size != file.size:
        words = f"{size} bytes, the manifest says {file.size}"
        return Answer(file.path, source.label, "differs", words)
    if None not in (sha256, file.sha256) and sha256 != file.sha256:
        words = f"sha256 {sha256}, the manifest says {file.sha256}"
        return Answer(file.path, source.label, "differs", words)
    compared = [
        word
        for word, one, other in (
            ("size", size, file.size),
            ("sha256", sha256, file.sha256),
        )
        if None not in (one, other)
    ]
    outcome: Outcome = "same" if compared else "there"
    return Answer(file.path, source.label, outcome, " and ".join(compared) or None)


def _outcome(error: ModelsError) -> Outcome:
    if isinstance(error, NotThere):
        return "absent"
    return "auth" if isinstance(error, AuthNeeded) else "unreachable"

"""wan models validate, why, path-map, mirror: what fits, where, and for whom."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.cli.models.asked import Asked
from common.cli.screen import WRONG_USE, Stop, draw, put, say
from common.cli.services import service_of
from common.sizes import human

if TYPE_CHECKING:
    from common.models.validate import Answer, Check
    from common.models.why import Why
    from common.service import Service

FileName = Annotated[
    str, typer.Argument(metavar="FILE", help="Its name, or folder/name.")
]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write there, not to stdout.")
]
Online = Annotated[
    bool,
    typer.Option("--online", help="Ask every source for size and sha256, too."),
]


def validate(asked: Asked, online: Online = False) -> None:
    """
    Check that manifest, lock and services agree.

    No network is asked, but for --online. Ends with 2 where they do not agree, or where
    a source has another file than the manifest says; else with 7 or 6 where a source
    refuses, or does not have, a file.
    """
    from common.models.errors import AuthNeeded, SourcesFailed
    from common.models.validate import ask, checks

    ensurer = asked.look()
    manifest = ensurer.manifest
    locked = ensurer.as_known(manifest.files)
    found = list(checks(manifest, every_service()))
    answers = ask(locked, ensurer.bringer.sources) if online else []
    outcomes = Counter(one.outcome for one in answers)
    wrong = [one for one in found if one.problem is not None]
    if asked.as_json:
        asked.answer(
            {
                "ok": not wrong and not set(outcomes) - {"same", "there"},
                "manifest": manifest.name,
                "files": len(manifest.files),
                "models": len(manifest.models),
                "unverified": sum(file.sha256 is None for file in locked),
                "services": [one.as_dict() for one in found],
                "online": [one.as_dict() for one in answers] if online else None,
            }
        )
    else:
        _say_services(found)
        if online:
            _say_answers(answers)
        put(
            f"{manifest.name}: {len(manifest.files)} files,"
            f" {len(manifest.models)} models"
        )
    if wrong:
        count = f"{len(wrong)} of the files that services load do not fit"
        raise Stop(count, "correct the manifest or the workflow", WRONG_USE)
    if outcomes["differs"]:
        raise Stop("a source has another file than the manifest says", code=WRONG_USE)
    if outcomes["auth"]:
        hint = "set HF_TOKEN, and accept the licence on its page"
        raise Stop("a source wants a token", hint, AuthNeeded.exit_code)
    if outcomes["absent"] or outcomes["unreachable"]:
        raise Stop("a source does not have its file", code=SourcesFailed.exit_code)


def why(asked: Asked, file: FileName) -> None:
    """
    Say all that is known of a file.

    Who needs it, where it is looked for, what is there and since when, and whether gc
    would remove it.
    """
    from common.models.why import why as look

    found = look(asked.look(), file, every_service())
    if asked.as_json:
        asked.answer(found.as_dict())
    else:
        put("\n".join(lines(found)))


def path_map(asked: Asked, out: Out = None) -> None:
    """
    Write ComfyUI's extra_model_paths.yaml.

    It has all roots, the one that is written first, and all kinds of weights.
    """
    from common.disk import atomic_write
    from common.models.path_map import path_map as text_of

    text = text_of(asked.look().layers)
    if out is not None:
        atomic_write(out, text.encode())
        if not asked.as_json:
            say(f"wrote {out}; start ComfyUI with --extra-model-paths-config {out}")
    if asked.as_json:
        asked.answer({"path": None if out is None else str(out), "text": text})
    elif out is None:
        put(text.rstrip("\n"))


def every_service() -> list[Service]:
    """Return all services that there are."""
    from common.service import folders

    return [service_of(folder.name) for folder in folders()]


def lines(found: Why) -> list[str]:
    """Return what is known of a file, for people."""
    status = found.status
    file = status.file
    facts = [human(status.size) if status.size else "size not known"]
    facts.append(f"sha256 {status.sha256}" if status.sha256 else "sha256 not known yet")
    facts.append(file.licence or "licence: see its page")
    said = [file.path, f"  {', '.join(facts)}"]
    for id_, variants in found.models.items():
        said.append(f"  in {id_}: {', '.join(variants)}")
    for use in found.uses:
        when = "" if use.always else ", for some requests only"
        said.append(f"  needed by {use.service}{when}")
    if not found.uses:
        said.append("  no service loads it")
    for place in found.places:
        reason = f": {place.reason}" if place.reason else ""
        said.append(f"  {place.state.value} at {place.path}{reason}")
    if status.done_bytes and status.path is None:
        said.append(f"  {human(status.done_bytes)} of it came")
    if status.near is not None:
        said.append(f"  is it {status.near}?")
    if found.receipt is not None:
        moment = time.gmtime(found.receipt.verified_at)
        sources = "".join(
            f", {human(size)} from {label}"
            for label, size in found.receipt.sources.items()
        )
        at = time.strftime("%Y-%m-%d %H:%M", moment)
        said.append(f"  {found.receipt.how} and hashed {at} UTC{sources}")
    if found.holder is not None:
        said.append(f"  fetched just now by {found.holder}")
    said += [f"  had at {source}" for source in file.sources]
    said.append(f"  gc {'removes it' if found.goes else 'keeps it'}: {found.gc}")
    return said


def _say_services(found: Sequence[Check]) -> None:
    by: dict[str, list[Check]] = {}
    for one in found:
        by.setdefault(one.service, []).append(one)
    for service, loads in by.items():
        wrong = [one for one in loads if one.problem is not None]
        put(f"{'✗' if wrong else '✓'} {service}: loads {len(loads)}")
        for one in wrong:
            hint = f" ({one.hint})" if one.hint else ""
            put(f"    {one.what}: {one.problem}{hint}")


def _say_answers(answers: Iterable[Answer]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("says", "file", "source", "", box=None, pad_edge=False)
    for one in answers:
        row = (one.outcome, Text(one.file), Text(one.source), Text(one.detail or ""))
        table.add_row(*row)
    draw(table)

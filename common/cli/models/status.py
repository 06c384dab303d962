"""wan models status, verify: what is there, and whether it is right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.cli.models.asked import Asked
from common.cli.models.choice import (
    Choice,
    Everything,
    Group,
    Names,
    Only,
    Services,
    WithVariants,
    again,
    files_of,
)
from common.cli.models.show import stoppable, watching
from common.cli.screen import Stop, draw, put, say
from common.disk import free_bytes
from common.sizes import human

if TYPE_CHECKING:
    from common.models.ensurer import ModelEnsurer
    from common.models.layers import Layers
    from common.models.status import FileStatus, ModelStatus

Deep = Annotated[
    bool,
    typer.Option(
        "--deep", help="Read and hash every byte, and note what is right in receipts."
    ),
]


def status(
    asked: Asked,
    names: Names = None,
    only: Only = None,
    service: Services = None,
    everything: Everything = False,
    with_variants: WithVariants = False,
) -> None:
    """
    Say what is there; asks no network and reads no file as a whole.

    With nothing named, every model is listed, and only what is corrupt makes it fail;
    what is named and not ready ends with 3, or with 4 when a part of it is corrupt.
    """
    from common.models.status import ModelStatus

    ensurer = asked.look()
    choice = Choice.of(names, only, service, everything, with_variants)
    if choice:
        groups = choice.groups(ensurer)
        found = [
            (group.kind, ModelStatus(*_title(group), ensurer.file_status(group.files)))
            for group in groups
        ]
    else:
        found = [("model", one) for one in ensurer.status()]
    if asked.as_json:
        asked.answer(as_object(ensurer, found))
    else:
        put("\n".join(roots(ensurer.layers)) + "\n")
        _table([one for _, one in found], whole=bool(choice))
    _judge([file for _, one in found for file in one.files], asked, choice)


def verify(
    asked: Asked,
    names: Names = None,
    only: Only = None,
    service: Services = None,
    everything: Everything = False,
    with_variants: WithVariants = False,
    deep: Deep = False,
) -> None:
    """
    Look at files again; with --deep, hash them.

    With nothing named, all that is there. What is named and absent ends with 3, what
    is corrupt with 4; 'wan models repair' fetches it again.
    """
    ensurer = asked.look()
    choice = Choice.of(names, only, service, everything, with_variants)
    files = files_of(choice.groups(ensurer)) if choice else ensurer.there()
    sizes = [(one.path, one.size) for one in ensurer.as_known(files)]
    with stoppable() as stop, watching(sizes, as_json=asked.as_json) as tell:
        found = ensurer.verify(files, deep=deep, notice=tell, stop=stop)
    if asked.as_json:
        asked.answer({"deep": deep, "files": [one.as_dict() for one in found]})
    else:
        file_table(found)
    _judge(found, asked, choice)


def as_object(
    ensurer: ModelEnsurer, found: Iterable[tuple[str, ModelStatus]]
) -> dict[str, Any]:
    """Return the object of `status --json`."""
    lists: dict[str, list[dict[str, object]]] = {"models": [], "services": []}
    ready = True
    files = []
    for kind, one in found:
        ready = ready and one.state == "ready"
        row = one.as_dict()
        if kind == "model":
            lists["models"].append(row)
        elif kind == "service":
            row = {key: row[key] for key in row if key not in ("variant", "pinned")}
            lists["services"].append({"service": row.pop("model"), **row})
        else:
            files += [file.as_dict() for file in one.files]
    last = ensurer.layers.layers[-1]
    return {
        "ready": ready,
        "root": str(last.root),
        "layers": [str(layer.root) for layer in ensurer.layers],
        "writable": last.writable,
        "refusal": last.refusal or None,
        "free_bytes": free_bytes(last.root),
        **lists,
        "files": files,
    }


def roots(layers: Layers) -> list[str]:
    """Return where is looked, lowest first, and whether it takes writes."""
    *lower, last = layers
    said = [f"only read: {layer.root}" for layer in lower]
    if last.writable:
        state = f"{human(free_bytes(last.root))} free"
    elif last.root.exists():
        state = f"takes no writes: {last.refusal}"
    else:
        state = "not there yet"
    return [*said, f"root: {last.root}, {state}"]


def file_table(found: Sequence[FileStatus]) -> None:
    """Print files with their state, and why it is not better."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=bool(found))
    for title in ("state", "size", "file", "note"):
        table.add_column(title, overflow="fold", no_wrap=title in ("state", "size"))
    for one in found:
        table.add_row(
            one.state.value,
            "" if one.size is None else human(one.size),
            Text(one.file.path),
            Text(note(one)),
        )
    if found:
        draw(table)
    else:
        say("no file of the manifest is there")


def note(one: FileStatus) -> str:
    """Return what is to be known of a file beside its state."""
    parts = [one.reason] if one.reason and one.state.value != "partial" else []
    if one.state.value == "partial":
        parts.append(f"{human(one.done_bytes)} came")
    if one.near is not None:
        parts.append(f"is it {one.near}?")
    return "; ".join(parts)


def _title(group: Group) -> tuple[str, str]:
    return group.name, group.variant or ""


def _table(models: Sequence[ModelStatus], *, whole: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("model", "variant", "state", "there", "of", ""):
        table.add_column(title, no_wrap=True)
    for one in models:
        table.add_row(
            Text(one.id),
            one.variant,
            one.state,
            human(one.done_bytes),
            one.size_said,
            "pinned" if one.pinned else "",
        )
    draw(table)
    files = {one.file.path: one for model in models for one in model.files}
    shown = [
        one
        for one in files.values()
        if whole or one.state.value in ("corrupt", "stale", "partial")
    ]
    if shown:
        put("")
        file_table(shown)


def _judge(found: Iterable[FileStatus], asked: Asked, choice: Choice) -> None:
    """End with 4 for what is corrupt, and with 3 for what was named and is absent."""
    from common.models.errors import Corrupt, Missing

    files = {one.file.path: one for one in found}.values()
    bad = [one for one in files if one.state.value == "corrupt"]
    if bad:
        names = ", ".join(one.file.name for one in bad)
        hint = f"{again('repair', choice, asked)} fetches what is wrong again"
        raise Stop(f"corrupt: {names}", hint, Corrupt.exit_code)
    gone = [one for one in files if not one.usable]
    if gone and choice:
        names = ", ".join(one.file.name for one in gone[:5])
        more = f" and {len(gone) - 5} more" if len(gone) > 5 else ""
        hint = f"{again('ensure', choice, asked)} fetches what is absent"
        raise Stop(f"not ready: {names}{more}", hint, Missing.exit_code)

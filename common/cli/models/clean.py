"""wan models gc, pin, unpin, du: what takes room, and what of it goes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.cli.models.asked import Asked
from common.cli.screen import FAILED, WRONG_USE, Stop, draw, put, say
from common.sizes import human, parsed

if TYPE_CHECKING:
    from common.models.garbage import Plan
    from common.models.gc import Collected

Id = Annotated[
    str, typer.Argument(metavar="ID", help="A model, such as t2v-A14B@2.2.0.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would go, whatever --yes.")
]
MaxBytes = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="What the root may hold, such as 200GB: what was used least recently"
        " goes, but for pinned models and those of --keep-days.",
    ),
]
KeepDays = Annotated[
    float, typer.Option(min=0, help="A model that was used since then stays.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do what is shown.")]
Placed = Annotated[
    bool,
    typer.Option("--placed", help="Files that somebody put there by hand may go too."),
]
Foreign = Annotated[
    bool,
    typer.Option(
        "--foreign",
        help="Other tools' half files, and strangers in quarantine, may go too.",
    ),
]


def gc(
    asked: Asked,
    dry_run: DryRun = False,
    max_bytes: MaxBytes = None,
    keep_days: KeepDays = 30.0,
    yes: Yes = False,
    placed: Placed = False,
    foreign: Foreign = False,
) -> None:
    """
    Show what no model needs; with --yes, remove it.

    What the manifest names stays, unless --max-bytes asks for its room.
    """
    limit = None if max_bytes is None else _limit(max_bytes)
    ensurer = asked.ensurer()
    collector = ensurer.collector()
    plan = collector.plan(limit, keep_days, placed=placed, foreign=foreign)
    done = None
    if yes and not dry_run:
        done = collector.collect(plan)
    if asked.as_json:
        failed = [] if done is None else done.failed
        asked.answer(
            plan.as_json()
            | {
                "done": done is not None,
                "removed_bytes": 0 if done is None else done.freed_bytes,
                "failed": [
                    {"paths": [str(path) for path in one.paths], "reason": why}
                    for one, why in failed
                ],
            }
        )
    else:
        _show(plan, ensurer.layers.layers[-1].root)
        _say_done(plan, done)
    if done is not None and done.failed:
        names = ", ".join(str(one.paths[0]) for one, _ in done.failed)
        raise Stop(f"in use, and still there: {names}", "run it again later", FAILED)


def pin(asked: Asked, model: Id) -> None:
    """Keep a model's files whatever gc is asked; those of all its variants."""
    from common.models import refs

    ensurer = asked.ensurer()
    found = ensurer.manifest.model(ensurer.manifest.full_id(model))
    keys = [file.key for file in ensurer.as_known(found.files)]
    refs.pin(ensurer.layers.writable, found.id, keys)
    _say_pin(asked, found.id, pinned=True)


def unpin(asked: Asked, model: Id) -> None:
    """Let gc decide about a model again."""
    from common.models import refs

    ensurer = asked.ensurer()
    # What is pinned may have left the manifest.
    layer, id_ = ensurer.layers.writable, model
    if id_ not in refs.pins(layer):
        id_ = ensurer.manifest.full_id(model)
    refs.unpin(layer, id_)
    _say_pin(asked, id_, pinned=False)


def du(asked: Asked) -> None:
    """Say what weights take, and what shared bytes save."""
    from common.models.usage import usage

    ensurer = asked.look()
    models = ensurer.manifest.models.values()
    found = usage(
        ensurer.layers, {one.id: ensurer.as_known(one.files) for one in models}
    )
    if asked.as_json:
        asked.answer(
            {
                "bytes": found.bytes,
                "naive_bytes": sum(layer.naive_bytes for layer in found.layers),
                "shared_bytes": found.shared_bytes,
                "layers": [asdict(layer) for layer in found.layers],
                "models": [
                    {"model": id_, "bytes": size} for id_, size in found.models.items()
                ],
                "files": [
                    asdict(file) | {"state": file.state.value} for file in found.files
                ],
            }
        )
        return
    from rich.table import Table
    from rich.text import Text

    layers = Table(box=None, pad_edge=False)
    for title in ("layer", "on disk", "as if apart", "unknown", "half", *_LAST):
        layers.add_column(title, justify="left" if title == "layer" else "right")
    for one in found.layers:
        sizes = (
            one.bytes,
            one.naive_bytes,
            one.unknown_bytes,
            one.staging_bytes,
            one.reserved_bytes,
            one.trash_bytes,
            one.quarantine_bytes,
        )
        layers.add_row(Text(one.root), *map(human, sizes))
    each = Table(box=None, pad_edge=False)
    each.add_column("model")
    each.add_column("there", justify="right")
    for id_, size in found.models.items():
        each.add_row(Text(id_), human(size))
    draw(layers)
    put("")
    draw(each)
    put(f"\nmodels share {human(found.shared_bytes)}")


#: Columns; "held" is the room that half files take, what came of them included.
_LAST = ("held", "trash", "bad")


def _show(plan: Plan, root: Path) -> None:
    if not plan.removals:
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("goes", "frees", "what", "why", box=None, pad_edge=False)
    for one in plan.removals:
        path = one.paths[0]
        name = path.relative_to(root) if path.is_relative_to(root) else path
        table.add_row(one.kind, human(one.bytes), Text(str(name)), one.why)
    draw(table)


def _say_done(plan: Plan, done: Collected | None) -> None:
    if not plan.removals:
        say(f"nothing to remove; {human(plan.kept_bytes)} stay")
    elif done is None:
        say(f"this frees {human(plan.freed_bytes)}; {human(plan.kept_bytes)} stay")
        say("nothing was removed: --yes does it")
    else:
        say(f"freed {human(done.freed_bytes)}; {human(plan.kept_bytes)} stay")
    if plan.over_bytes:
        say(
            f"still {human(plan.over_bytes)} over --max-bytes: the rest is pinned, in"
            " use, was used lately or put there by hand, or is under an hour old"
        )


def _say_pin(asked: Asked, id_: str, *, pinned: bool) -> None:
    if asked.as_json:
        asked.answer({"model": id_, "pinned": pinned})
    else:
        say(f"{id_} is {'pinned' if pinned else 'not pinned any more'}")


def _limit(text: str) -> int:
    try:
        return parsed(text)
    except ValueError as error:
        raise Stop(str(error), "write it like 200GB", WRONG_USE) from None

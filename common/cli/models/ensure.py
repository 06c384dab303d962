"""wan models ensure, repair: bring what is absent or broken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.cli.models.asked import Asked, said
from common.cli.models.choice import (
    Choice,
    Everything,
    Names,
    Only,
    Services,
    WithVariants,
    files_of,
)
from common.cli.models.show import duration, stoppable, watching
from common.cli.screen import INTERRUPTED, WRONG_USE, Stop, say
from common.sizes import human

if TYPE_CHECKING:
    from common.manifest_schema import WeightFile
    from common.models.bring import Result
    from common.models.ensurer import ModelEnsurer

Bake = Annotated[
    bool,
    typer.Option(
        "--bake",
        "--baked",
        help="For images: plain files, and everything dated alike, so that the same"
        " weights make the same layer.",
    ),
]
Date = Annotated[
    int,
    typer.Option(
        min=0,
        envvar="SOURCE_DATE_EPOCH",
        metavar="SECONDS",
        help="What --bake dates files, in seconds since 1970.",
    ),
]


def ensure(
    asked: Asked,
    names: Names = None,
    only: Only = None,
    service: Services = None,
    everything: Everything = False,
    with_variants: WithVariants = False,
    bake: Bake = False,
    date: Date = 0,
) -> None:
    """
    Fetch what is absent, verified; what is there asks no network.

    A fetch that was cut goes on where it was. Ctrl-C keeps what came.
    """
    if bake and (root := asked.settings.weights_root).joinpath("blobs").exists():
        hint = "name a folder of the image with --root"
        raise Stop(f"{root} is a volume that others share", hint, WRONG_USE)
    ensurer = asked.ensurer(date if bake else None)
    choice = Choice.of(names, only, service, everything, with_variants)
    files = files_of(choice.groups(ensurer))
    try:
        bring(asked, ensurer, files, ensurer.ensure_files)
    finally:
        if bake and ensurer.layers.layers[-1].writable:
            from common.models.bake import seal

            seal(ensurer.layers.writable, date)


def repair(
    asked: Asked,
    names: Names = None,
    only: Only = None,
    service: Services = None,
    everything: Everything = False,
    with_variants: WithVariants = False,
) -> None:
    """
    Hash files, and fetch again what is wrong.

    Only its wrong parts come, where models.lock knows the parts. With nothing named,
    all that is there is hashed. What is named and absent is fetched.
    """
    ensurer = asked.ensurer()
    choice = Choice.of(names, only, service, everything, with_variants)
    files = files_of(choice.groups(ensurer)) if choice else ensurer.there()
    bring(asked, ensurer, files, ensurer.repair_files)


def bring(
    asked: Asked,
    ensurer: ModelEnsurer,
    files: Sequence[WeightFile],
    run: Callable[..., list[Result]],
) -> None:
    """
    Run, show how far it is, and say what came of it.

    Raises:
        Stop: not all is there; with the code of the first file that failed.
    """
    from common.models.errors import Stopped

    began = time.monotonic()
    sizes = [(one.path, one.size) for one in ensurer.as_known(files)]
    with stoppable() as stop, watching(sizes, as_json=asked.as_json) as tell:
        try:
            results = run(files, notice=tell, stop=stop)
        except Stopped as error:
            results = [_stopped(file, error) for file in files]
    seconds = time.monotonic() - began
    failed = [one for one in results if one.error is not None]
    stopped = [one for one in failed if isinstance(one.error, Stopped)]
    code = _code(stopped or failed)
    if asked.as_json:
        asked.answer(as_object(results, seconds, code))
    if stopped:
        raise Stop(_kept(ensurer, files), code=INTERRUPTED)
    if failed:
        hints = [one.error.hint for one in failed if one.error and one.error.hint]
        cures = "\n".join(dict.fromkeys(hints)) or None
        raise Stop("\n".join(_lines(failed)), cures, code)
    if not asked.as_json:
        for one in results:
            if one.aside is not None:
                say(f"{one.file.path}: what was there was wrong; now in {one.aside}")
        say(summary(ensurer, results, seconds))


def as_object(results: Sequence[Result], seconds: float, code: int) -> dict[str, Any]:
    """Return the object of `ensure --json`."""
    return {
        "ready": code == 0,
        "exit_code": code,
        "fetched_bytes": sum(one.fetched_bytes for one in results),
        "seconds": round(seconds, 3),
        "files": [
            {
                "file": one.file.name,
                "folder": one.file.folder,
                "path": None if one.path is None else str(one.path),
                "fetched_bytes": one.fetched_bytes,
                "seconds": round(one.seconds, 3),
                "sources": dict(one.sources),
                "aside": None if one.aside is None else str(one.aside),
                "error": None if one.error is None else said(one.error),
            }
            for one in results
        ],
    }


def summary(ensurer: ModelEnsurer, results: Sequence[Result], seconds: float) -> str:
    """Return what there is now, in a line."""
    size = sum(one.done_bytes for one in ensurer.file_status(r.file for r in results))
    files = "1 file" if len(results) == 1 else f"{len(results)} files"
    there = f"ready: {files}, {human(size)}"
    came = sum(one.fetched_bytes for one in results)
    if not came:
        return f"{there}, nothing to fetch"
    rate = f"{human(came / seconds)}/s" if seconds > 0 else ""
    return f"{there}; fetched {human(came)} in {duration(seconds)} ({rate})"


def _stopped(file: WeightFile, error: Any) -> Result:
    from common.models.bring import Result

    return Result(file, error=error)


def _lines(failed: Sequence[Result]) -> Iterator[str]:
    """Yield each file that failed, and below it what each source said."""
    for one in failed:
        if one.error is not None:
            yield one.file.path
            yield from (f"  {part}" for part in one.error.message.split("; "))


def _code(failed: Sequence[Result]) -> int:
    return next((one.error.exit_code for one in failed if one.error is not None), 0)


def _kept(ensurer: ModelEnsurer, files: Sequence[WeightFile]) -> str:
    """Say what of an interrupted fetch is not lost."""
    parts = [
        f"{human(one.done_bytes)} of {one.file.name}"
        for one in ensurer.file_status(files)
        if one.state.value == "partial"
    ]
    if not parts:
        return "interrupted; whole files are kept"
    return f"interrupted; kept for the next time: {', '.join(parts)}"

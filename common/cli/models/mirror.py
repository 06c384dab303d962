"""wan models mirror: copy what is here to where other machines get it from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.cli.models.asked import Asked, said
from common.cli.models.choice import (
    Choice,
    Everything,
    Names,
    Only,
    Services,
    WithVariants,
    again,
    files_of,
)
from common.cli.models.show import stoppable, watching
from common.cli.screen import INTERRUPTED, Stop, say
from common.sizes import human

if TYPE_CHECKING:
    import threading

    from common.manifest_schema import WeightFile
    from common.models.ensurer import ModelEnsurer
    from common.models.errors import ModelsError
    from common.models.meter import Tell
    from common.models.mirror import Mirror

Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read and hash what the mirror has, too, and send anew what is damaged.",
    ),
]
Target = Annotated[str, typer.Argument(help="local:///folder or s3://bucket/prefix.")]


@dataclass(frozen=True)
class Copy:
    """What became of one file."""

    file: str
    #: "mended" = the mirror had other bytes of that name
    outcome: Literal["copied", "mended", "there", "absent", "failed"]
    bytes: int = 0  #: that were copied
    error: ModelsError | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON."""
        error = None if self.error is None else said(self.error)
        return asdict(self) | {"error": error}


def mirror(
    asked: Asked,
    target: Target,
    names: Names = None,
    only: Only = None,
    service: Services = None,
    everything: Everything = False,
    with_variants: WithVariants = False,
    verify: Verify = False,
) -> None:
    """
    Copy what is here to a mirror.

    It is hashed on its way, and what the mirror has already is not sent: a file of that
    sha256 and size; --verify hashes it there. With nothing named, all that is here.
    Machines with WAN_MODELS_MIRROR set to TARGET ask it before the publishers.
    """
    from common.models.errors import Missing, Stopped
    from common.models.mirror import open_mirror

    ensurer = asked.look()
    to = open_mirror(target, ensurer.bringer.sources.s3)
    choice = Choice.of(names, only, service, everything, with_variants)
    files = files_of(choice.groups(ensurer)) if choice else ensurer.there()
    sizes = [(one.path, one.size) for one in ensurer.as_known(files)]
    done: list[Copy] = []
    with stoppable() as stop, watching(sizes, as_json=asked.as_json) as tell:
        for file in files:
            done.append(_copy(ensurer, to, file, tell, stop, verify=verify))
            if isinstance(done[-1].error, Stopped):
                break
    failed = [one.error for one in done if one.error is not None]
    absent = [one.file for one in done if one.outcome == "absent"]
    code = failed[0].exit_code if failed else Missing.exit_code if absent else 0
    came = sum(one.bytes for one in done)
    if asked.as_json:
        files_said = [one.as_dict() for one in done]
        asked.answer(
            {
                "target": target,
                "copied_bytes": came,
                "exit_code": code,
                "files": files_said,
            }
        )
    if code == INTERRUPTED:
        raise Stop("interrupted; whole files are kept there", code=code)
    if failed:
        text = "\n".join(dict.fromkeys(one.message for one in failed))
        raise Stop(text, failed[0].hint, code)
    if absent:
        typed = again("ensure", Choice(tuple(absent)), asked)
        hint = f"{typed} fetches what is absent and hashes the rest"
        raise Stop(f"not here: {', '.join(absent)}", hint, code)
    if not asked.as_json:
        count = Counter(one.outcome for one in done)
        mended = f", {count['mended']} mended" if count["mended"] else ""
        copied = f"{count['copied']} copied{mended}, {human(came)}"
        say(f"{len(done)} files at {target}; {copied}")


def _copy(
    ensurer: ModelEnsurer,
    to: Mirror,
    file: WeightFile,
    tell: Tell,
    stop: threading.Event,
    *,
    verify: bool,
) -> Copy:
    from common.models.errors import ModelsError, Stopped
    from common.models.layers import State
    from common.models.meter import Notice, Step

    [status] = ensurer.file_status([file])
    path, sha256 = status.path, status.sha256
    if path is None or sha256 is None or status.state is State.CORRUPT:
        return Copy(file.path, "absent")
    size = path.stat().st_size

    def telling(step: Step) -> Callable[[int, int], None]:
        return lambda done, total: tell(Notice(file.path, step, done, total))

    try:
        before = to.size(sha256)
        good = before == size
        if good and verify:
            good = to.digest(sha256, telling(Step.VERIFYING), stop) == sha256
        if not good:
            tell(Notice(file.path, Step.COPYING, 0, size))
            to.put(path, sha256, telling(Step.COPYING), stop)
    except ModelsError as error:
        step = Step.STOPPED if isinstance(error, Stopped) else Step.FAILED
        tell(Notice(file.path, step, 0, size, error.message))
        return Copy(file.path, "failed", 0, error)
    tell(Notice(file.path, Step.READY, size, size))
    if good:
        return Copy(file.path, "there")
    return Copy(file.path, "copied" if before is None else "mended", size)

"""wan container: a container's first process; looks, starts, keeps up, drains."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.cli.screen import WRONG_USE, Stop, plain_errors
from common.cli.services import service_of

if TYPE_CHECKING:
    from common.container.preflight import Finding
    from common.container.settings import Container

log = logging.getLogger(__name__)

#: More than the service's own drain: it closes streams and files after it.
CLOSING_S = 15.0

Name = Annotated[
    str | None,
    typer.Argument(metavar="SERVICE", help="Default: WAN_SERVICE, which images set."),
]
Check = Annotated[
    bool,
    typer.Option("--check", help="Only look at the machine, and say what is wrong."),
]


def container(service: Name = None, check: Check = False) -> None:
    """
    Be a container's first process: serve one service and what was asked for beside it.

    On RunPod, an endpoint's queue is served instead of HTTP.
    """
    with plain_errors():
        from common import logs
        from common.container import settings as environment
        from common.container.machine import look
        from common.container.plan import VOLUMES, defaults, programs
        from common.container.preflight import findings
        from common.container.supervisor import Supervisor
        from common.settings import Settings

        wanted = environment.read()
        name = service or wanted.service
        if not name:
            raise Stop("which service?", "name it, or set WAN_SERVICE", WRONG_USE)
        machine = look(VOLUMES)
        environment.set_defaults(
            defaults(wanted, environment.environment(), machine.volumes, machine.sealed)
        )
        settings = Settings.read()
        logs.set_up(settings)
        found = service_of(name)
        http = not wanted.takes_queue
        _say(findings(found, settings, machine, serves_http=http))
        if check:
            return
        with tempfile.TemporaryDirectory(prefix="wan-") as folder:
            scratch = Path(folder)
            _keep_authkey(wanted, scratch)
            supervisor = Supervisor(
                programs(
                    found.name, settings, wanted, environment.environment(), scratch
                ),
                grace_s=settings.drain_s + CLOSING_S,
            )
            code = supervisor.run()
    raise typer.Exit(code)


def _say(findings: Iterable[Finding]) -> None:
    """Log each finding; stop where nothing could work."""
    from common.container.preflight import Level

    levels = {
        Level.FINE: logging.INFO,
        Level.WARNING: logging.WARNING,
        Level.FATAL: logging.ERROR,
    }
    fatal = None
    for one in findings:
        cure = f": {one.cure}" if one.cure else ""
        log.log(levels[one.level], "%s%s", one.what, cure)
        if one.level is Level.FATAL:
            fatal = fatal or one
    if fatal is not None:
        raise Stop(fatal.what, fatal.cure, WRONG_USE)


def _keep_authkey(wanted: Container, scratch: Path) -> None:
    """Put Tailscale's key where only we can read it."""
    from common.container.plan import authkey_file

    if wanted.enable_tailscale and wanted.tailscale_authkey is not None:
        path = authkey_file(scratch)
        path.touch(mode=0o600)
        path.write_text(wanted.tailscale_authkey.get_secret_value())

"""The commands of `wan models`, in the order in which a person needs them."""

from __future__ import annotations

import typer

from common.cli.models import check, clean, ensure, mirror, status
from common.cli.models.asked import EXIT_CODES, command, everywhere

app = typer.Typer(
    help="Look at the weights of the services; fetch, check, share and remove them.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    callback=everywhere,
)

for run in (
    status.status,
    ensure.ensure,
    status.verify,
    ensure.repair,
    check.why,
    clean.du,
    clean.gc,
    clean.pin,
    clean.unpin,
    mirror.mirror,
    check.path_map,
    check.validate,
):
    app.command(run.__name__.replace("_", "-"), epilog=EXIT_CODES)(command(run))

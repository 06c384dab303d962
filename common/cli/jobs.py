"""wan jobs: look at jobs, follow one, cancel one."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.cli.address import DEFAULT_URL, Json, Url, connect
from common.cli.screen import WRONG_USE, Stop, console, draw, plain_errors, put, say

if TYPE_CHECKING:
    from common.client import Client

app = typer.Typer(help="Look at jobs, follow or cancel one.", no_args_is_help=True)

RECENT = 200
FULL_ID = 36  # characters of a UUID
ROOM = 80  # columns of a terminal that has room for the time as well

Id = Annotated[
    str, typer.Argument(metavar="ID", help="Its id, or the beginning of a recent one.")
]


@app.command("list")
def list_(
    url: Url = DEFAULT_URL,
    status: Annotated[
        str | None, typer.Option(help="One or more, comma-separated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=RECENT)] = 20,
    as_json: Json = False,
) -> None:
    """List the newest jobs."""
    with plain_errors(), connect(url) as client:
        found = client.list(status=status, limit=limit)["jobs"]
    if as_json:
        for job in found:
            put(json.dumps(job, ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    widths = {"id": FULL_ID, "status": 9, "": 4, "created": 19}
    if console(sys.stdout).width < ROOM:
        del widths["created"]
    table = Table(box=None, pad_edge=False)
    for title, width in widths.items():
        table.add_column(title, no_wrap=True, min_width=width)
    table.add_column("prompt", no_wrap=True, overflow="ellipsis")
    for job in found:
        running = job["status"] == "running"
        row = {
            "id": job["id"],
            "status": job["status"],
            "": f"{job['progress']['value']:.0%}" if running else "",
            "created": job["created_at"][:19].replace("T", " "),
        }
        prompt = Text(_short(job["request"].get("prompt", "")))
        table.add_row(*(row[title] for title in widths), prompt)
    draw(table)


@app.command()
def show(job_id: Id, url: Url = DEFAULT_URL) -> None:
    """Show a job as JSON."""
    with plain_errors(), connect(url) as client:
        put(json.dumps(find(client, job_id), indent=2, ensure_ascii=False))


@app.command()
def watch(job_id: Id, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Follow a job to its end; Ctrl-C leaves it running."""
    from common.cli.follow import outcome, summary, watched

    with plain_errors(), connect(url) as client:
        job = outcome(watched(client, find(client, job_id), as_json=as_json))
        if not as_json:
            for one in job["outputs"]:
                put(client.address_of(one["url"]))
        say(summary(job))


@app.command()
def cancel(job_id: Id, url: Url = DEFAULT_URL) -> None:
    """Stop a job, waiting or running."""
    with plain_errors(), connect(url) as client:
        job = client.cancel(find(client, job_id)["id"])
        put(f"{job['id']} {job['status']}")


def find(client: Client, text: str) -> dict[str, Any]:
    """
    Return a job by its id or by a beginning that only one recent job has.

    Raises:
        Stop: none has, or several have, or nothing was given.
    """
    if not text.strip():
        hint = "give its id, or the beginning of one; 'wan jobs list' has them"
        raise Stop("which job?", hint, WRONG_USE)
    if len(text) >= FULL_ID:
        return client.get(text)
    jobs = client.list(limit=RECENT)["jobs"]
    found: list[dict[str, Any]] = [j for j in jobs if j["id"].startswith(text.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Stop(f"none of the last {RECENT} jobs begins with {text}", code=WRONG_USE)
    ids = ", ".join(job["id"] for job in found[:5])
    raise Stop(f"{text} fits several jobs: {ids}", code=WRONG_USE)


def _short(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= 60 else line[:59] + "…"

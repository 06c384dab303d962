"""wan runpod: be a worker of a serverless endpoint, and deploy, use and watch one."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.cli.screen import (
    INTERRUPTED,
    NO_SERVICE,
    WRONG_USE,
    Stop,
    plain_errors,
    put,
    say,
)
from common.cli.serve import Name, start_errors
from common.cli.services import service_of

if TYPE_CHECKING:
    from common.runpod.account import Client

app = typer.Typer(
    help="Serve RunPod's queue; deploy, use and watch an endpoint there.",
    no_args_is_help=True,
)

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id.")]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def worker(context: typer.Context, service: Name) -> None:
    """
    Take jobs from RunPod's queue. Its SDK's own options may follow the service.

    Away from RunPod, --rp_serve_api --rp_api_port 8000 serves its local API.
    """
    with plain_errors(), start_errors():
        if find_spec("runpod") is None:  # to import it takes two seconds
            raise Stop(
                "RunPod's SDK is not installed",
                "pip install 'wan-services[runpod]'",
                WRONG_USE,
            )
        from common import logs
        from common.runpod import settings as environment
        from common.settings import Settings

        env, settings = environment.read(), Settings.read()
        if not (env.on_platform or "--rp_serve_api" in context.args):
            raise Stop(
                "this is not a RunPod worker: RUNPOD_WEBHOOK_GET_JOB is not set",
                "to try it here, add --rp_serve_api",
                WRONG_USE,
            )
        nameless = settings.engine is None and settings.engine_kind == "embedded"
        if env.on_platform and nameless:
            raise Stop(
                "no engine is named, and the embedded one only pretends",
                "set COMFYUI_DIR, or WAN_ENGINE=embedded to try the endpoint",
                WRONG_USE,
            )
        from common.runpod.volume import mounted
        from common.runpod.worker import work
        from common.runtime import Runtime

        logs.set_up(settings)
        work(Runtime(service_of(service), mounted(settings)), env, context.args)


@app.command()
def deploy(
    service: Name,
    image: Annotated[str, typer.Option(help="The service's image, with its tag.")],
    name: Annotated[str | None, typer.Option(help="Default: wan-SERVICE.")] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(help='Such as "NVIDIA L40S"; several = any, in that order.'),
    ] = None,
    volume: Annotated[
        str | None, typer.Option(help="Id of the network volume with the weights.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="For a secret: NAME={{ RUNPOD_SECRET_its-name }}.",
        ),
    ] = None,
    workers_min: Annotated[int, typer.Option(min=0)] = 0,
    workers_max: Annotated[int, typer.Option(min=1)] = 3,
    idle: Annotated[int, typer.Option(min=1, max=3600, help="Seconds.")] = 5,
    limit: Annotated[
        int, typer.Option(min=5, max=604_800, help="Seconds for one job.")
    ] = 1800,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be sent.")
    ] = False,
) -> None:
    """Make an endpoint of a service, or change the one of that name."""
    from common.runpod import deployment

    found = service_of(service)
    folder = _own_folder(found.name)
    wanted = deployment.Wanted(
        image=image,
        name=name or f"wan-{found.name}",
        gpus=tuple(gpu or ()),
        volume=volume,
        env=dict(_pair(one) for one in env or ()),
        workers_min=workers_min,
        workers_max=workers_max,
        idle_s=idle,
        limit_s=limit,
    )
    template = deployment.template(found.name, folder, wanted)
    if dry_run:
        endpoint = deployment.endpoint("(the template's id)", folder, wanted)
        put(json.dumps({"template": template, "endpoint": endpoint}, indent=2))
        return
    with _account() as client:
        made = client.put_template(template)
        body = deployment.endpoint(made["id"], folder, wanted)
        endpoint = client.put_endpoint(body)
    put(endpoint["id"])
    say(f'try it: wan runpod run {endpoint["id"]} --input \'{{"prompt": "a fox"}}\'')


@app.command()
def run(
    endpoint: Endpoint,
    input_: Annotated[
        str, typer.Option("--input", help="The request as JSON, or @FILE.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder to put the files into.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=5, max=604_800, help="Seconds that it may run.")
    ] = 1800,
) -> None:
    """Send a job and follow it; Ctrl-C cancels it."""
    request = _request(input_)
    with _account() as client:
        job = client.run(endpoint, request, limit)
        job_id, said = job["id"], ""
        try:
            for job in client.follow(endpoint, job_id):
                said = _say_change(job, said)
        except KeyboardInterrupt:
            client.cancel(endpoint, job_id)
            raise Stop(f"{job_id} is canceled", code=INTERRUPTED) from None
        if job["status"] != "COMPLETED":
            raise Stop(f"{job['id']} {job['status']}: {job.get('error', 'no reason')}")
        # The last of what the worker yields is the finished job.
        for one in job["output"][-1]["outputs"]:
            put(_kept(client, one, output))


@app.command()
def status(endpoint: Endpoint) -> None:
    """Say how an endpoint is set, and how many jobs and workers it has."""
    with _account() as client:
        found = client.endpoint(endpoint) | client.health(endpoint)
    found.pop("env", None)  # it may hold secrets
    found.pop("template", None)
    put(json.dumps(found, indent=2, ensure_ascii=False))


@contextmanager
def _account() -> Iterator[Client]:
    from common.runpod.account import Client, Denied
    from common.runpod.settings import Account

    try:
        with Client(Account()) as client:
            yield client
    except Denied as error:
        hint = "set RUNPOD_API_KEY to a key of your account"
        missing = error.status in (401, 403)
        code = NO_SERVICE if error.status is None else WRONG_USE
        raise Stop(str(error), hint if missing else None, code) from None


def _own_folder(name: str) -> Path:
    """Return the folder of that name: one that serves its neighbour has hub files."""
    from common.service import find

    return find(name)


def _pair(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not (mark and name):
        raise Stop("--env must be NAME=VALUE", code=WRONG_USE)  # never the value
    return name, value


def _request(text: str) -> dict[str, Any]:
    try:
        if text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise Stop(f"--input: {error.strerror}", code=WRONG_USE) from None
    except ValueError as error:
        raise Stop(f"--input is no JSON: {error}", code=WRONG_USE) from None
    if not isinstance(found, dict):
        raise Stop("--input must be a JSON object", code=WRONG_USE)
    return found


def _say_change(job: dict[str, Any], said: str) -> str:
    """Say a job's state if it is another than was said; return it."""
    line = f"{job['id']} {job['status']}"
    told = job.get("output")
    if isinstance(told, dict) and "progress" in told:
        line += f" {told['progress']['stage']} {told['progress']['value']:.0%}"
    if line != said:
        say(line)
    return line


def _kept(client: Client, output: dict[str, Any], folder: Path | None) -> str:
    """Return where an output is: its link, or the file that it was put into."""
    if folder is None:
        folder_or_link: str | None = output.get("url")
        if folder_or_link is not None:
            return folder_or_link
        folder = Path()
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(str(output["name"])).name  # a name, whatever the endpoint says
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    if "data" in output:
        path.write_bytes(base64.b64decode(output["data"]))
    else:
        with client.fetch(output["url"]) as answer, path.open("wb") as file:
            answer.raw.decode_content = True
            shutil.copyfileobj(answer.raw, file)
    return str(path)

"""wan doctor: what this machine lacks to serve, and the cure for each."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from common.cli.screen import Stop, called, plain_errors, put

if TYPE_CHECKING:
    from common.settings import Settings

PYTHON = (3, 11)
PACKAGES = (
    "aiohttp",
    "av",
    "fastapi",
    "filelock",
    "numpy",
    "PIL",
    "prometheus_client",
    "psutil",
    "pydantic_settings",
    "python_multipart",
    "sqlalchemy",
    "uvicorn",
    "websockets",
)
NEEDED_BYTES = 2 << 30  # some hundred clips
ANSWER_S = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    fine: bool
    what: str
    cure: str | None = None
    needed: bool = True  #: False = worth knowing, and no reason to fail


def doctor() -> None:
    """Check this machine and say what to do about what is wrong."""
    with plain_errors():
        wrong = 0
        for one in findings():
            mark = "✓" if one.fine else "✗" if one.needed else "–"
            put(f"{mark} {one.what}")
            if one.cure and not one.fine:
                put(f"  {one.cure}")
            wrong += one.needed and not one.fine
    if wrong:
        raise Stop(f"{wrong} of the checks failed")


def findings() -> Iterator[Finding]:
    """Look at one thing after the other."""
    yield python()
    packages = imports()
    yield packages
    if not packages.fine:
        return  # the rest is made of them
    from common.settings import Settings

    settings = Settings.read()
    yield from ports(settings)
    yield from data(settings)
    yield cards()
    yield from engines(settings)
    yield from folder_of_comfyui(settings)
    yield from weights(settings)


def python() -> Finding:
    """Look at the Python that runs us."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        sys.version_info >= PYTHON,
        f"Python {version}",
        f"install Python {PYTHON[0]}.{PYTHON[1]} or later",
    )


def imports() -> Finding:
    """Look whether what we are made of can be imported."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            return Finding(
                False,
                f"the package {name} cannot be imported: {error}",
                "run 'python start.py', which installs what is needed",
            )
    return Finding(True, f"{len(PACKAGES)} packages import")


def ports(settings: Settings) -> Iterator[Finding]:
    """Look whether the ports are free, or ours already."""
    from common.ports import PortTaken, listen

    named = "port" in settings.model_fields_set
    for port, whose in ((settings.engine_port, "engine"), (settings.port, "service")):
        if port == 0:
            continue
        try:
            listen(settings.host, port, only=True).close()
        except PortTaken as error:
            ours = _ours(port) if whose == "service" else None
            insisted = named and whose == "service"
            yield Finding(
                ours is not None,
                f"port {port}: {ours}" if ours else str(error),
                "stop that process, or choose another WAN_PORT"
                if insisted
                else "the next free port is used unless you name one",
                needed=insisted,
            )
        except OSError as error:
            yield Finding(
                False,
                f"{settings.host} port {port}: {error.strerror}",
                "set WAN_HOST and WAN_PORT to what this machine has",
            )
        else:
            yield Finding(True, f"port {port} is free for the {whose}")


def _ours(port: int) -> str | None:
    """Return what to say of a service of ours at a port; None = it is none."""
    from common.cli.address import CARD_S, card, connect
    from common.client import Refused, Unreachable
    from common.errors import Unauthorized

    url = f"http://127.0.0.1:{port}"
    if found := card(url):
        return f"{found['name']} runs"
    with connect(url, timeout_s=CARD_S, patience_s=0) as client:
        try:
            client.card()
        except Unreachable:
            return None
        except Refused as refused:
            if (refused.status, refused.code) == (401, Unauthorized.code):
                return "a service of ours runs, and asks for its key"
    return None


def data(settings: Settings) -> Iterator[Finding]:
    """Look at the data folder, its disk and its database."""
    from common.disk import atomic_write, free_bytes

    folder = (settings.data or Path("data")).resolve()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    probe = there / f".wan-doctor-{os.getpid()}"
    try:
        atomic_write(probe, b"")
        probe.unlink()
    except OSError as error:
        yield Finding(
            False,
            f"{folder} cannot be written: {error.strerror}",
            "set WAN_DATA to a folder of yours",
        )
        return
    free = free_bytes(folder)
    yield Finding(
        free >= NEEDED_BYTES,
        f"{folder} is writable, {free / 2**30:.1f} GiB free",
        f"free some space: {NEEDED_BYTES >> 30} GiB hold some hundred clips",
    )
    yield database(settings, folder)


def database(settings: Settings, folder: Path) -> Finding:
    """Look whether the job store opens."""
    import asyncio

    from common.jobs.commits import Unusable
    from common.jobs.ledger import now
    from common.jobs.store import Store
    from common.runtime import database_url

    async def look(data: Path) -> None:
        store = Store(database_url(settings, data), now)
        try:
            await store.open()
        finally:
            await store.aclose()

    try:
        with TemporaryDirectory() as empty:
            exists = (folder / "jobs.sqlite3").is_file()
            asyncio.run(look(folder if exists else Path(empty)))
    except Unusable as error:
        return Finding(False, str(error))
    return Finding(True, "the database opens")


def cards() -> Finding:
    """Look for a GPU."""
    from common.gpu import gpus

    found = [f"{one.name} ({one.vram_total_bytes / 2**30:.0f} GiB)" for one in gpus()]
    return Finding(
        bool(found),
        f"GPU: {', '.join(found)}" if found else "no NVIDIA GPU",
        "the embedded engine needs none; ComfyUI may run on another machine",
        needed=False,
    )


def engines(settings: Settings) -> Iterator[Finding]:
    """Look whether the ComfyUIs that are named answer."""
    import requests

    from common.comfy import shown

    for url in settings.engine_urls:
        try:
            answer = requests.get(f"{url}/system_stats", timeout=ANSWER_S)
            version = answer.json()["system"]["comfyui_version"]
        except (requests.RequestException, ValueError, KeyError, TypeError):
            yield Finding(
                False,
                f"no ComfyUI answers at {shown(url)}",
                "start it, or correct COMFYUI_URL",
            )
        else:
            yield Finding(True, f"ComfyUI {version} at {shown(url)}")


def folder_of_comfyui(settings: Settings) -> Iterator[Finding]:
    """Look whether the ComfyUI that we are to start is where it is said to be."""
    own = settings.engine_kind == "comfyui" and not settings.engine_urls
    if not own or settings.comfyui_dir is None:
        return
    main = settings.comfyui_dir / "main.py"
    if main.is_file():
        yield Finding(True, f"ComfyUI in {settings.comfyui_dir}")
    else:
        cure = "set COMFYUI_DIR to the folder that ComfyUI's main.py is in"
        yield Finding(False, f"there is no {main}", cure)


def weights(settings: Settings) -> Iterator[Finding]:
    """Look at the root of the weights, and at what each service lacks."""
    from common.models.access import HINT
    from common.models.ensurer import ModelEnsurer
    from common.models.errors import ModelsError
    from common.models.status import over
    from common.service import folders, load

    if not settings.supplies:
        if settings.engine_kind != "embedded":
            cure = "set WAN_MODELS to the folder with ComfyUI's models/ to have them"
            yield Finding(False, "weights are not fetched", cure, needed=False)
        return
    try:
        ensurer = ModelEnsurer.from_config(settings, make=False)
    except ModelsError as error:
        yield Finding(False, f"weights: {error.message}", error.hint)
        return
    root = ensurer.layers.layers[-1]
    if root.writable or not root.root.exists():
        free = f"{_free(root.root):.1f} GiB free"
        yield Finding(True, f"weights go to {root.root}, {free}")
    else:
        what = f"{root.root} takes no weights: {root.refusal}"
        yield Finding(False, what, HINT)
    for service in (load(folder) for folder in folders()):
        files = ensurer.file_status(ensurer.needed_by(service))
        absent = [one for one in files if not one.usable]
        size = sum((one.size or one.done_bytes) - one.done_bytes for one in absent)
        names = ", ".join(one.file.name for one in absent[:3])
        more = ", …" if len(absent) > 3 else ""
        yield Finding(
            not absent,
            f"{service.name} lacks {over(size, absent)}: {names}{more}"
            if absent
            else f"{service.name} has its {len(files)} weights",
            f"{called()} models ensure --service {service.name}",
            needed=False,
        )


def _free(folder: Path) -> float:
    """Return the GiB that are free where a folder is, or is to be."""
    from common.disk import free_bytes

    return free_bytes(folder) / 2**30

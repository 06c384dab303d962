"""
Whether the service can run a job now, and what is missing if it cannot.

It can when the volume holds the weights of one kind of request. Those that only other
kinds load are said in notes, and such a request is refused (`jobs/volume.py`), or waits
until they are fetched.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from common.comfy.scrub import scrub
from common.runtime import Runtime
from common.sizes import human
from common.weights import Overall, Weight


@dataclass(frozen=True)
class Missing:
    """One thing that keeps jobs from running."""

    what: str  #: "engine", "worker", "store", "weights" or "draining"
    message: str
    hint: str | None = None
    file: str | None = None
    looked_in: str | None = None
    near: str | None = None  #: a file that is there and has nearly that name
    done_bytes: int | None = None  #: of the file, where this process fetches it
    total_bytes: int | None = None
    eta_s: float | None = None  #: until all that is being fetched is there


@dataclass(frozen=True)
class Found:
    """What keeps jobs from running, most basic first, and what only some would need."""

    missing: list[Missing]  #: empty = ready
    notes: list[Missing]


async def look(runtime: Runtime) -> Found:
    """Return what is missing."""
    found = []
    if runtime.dispatcher.draining:
        found.append(Missing("draining", "the service is stopping"))
    if not await runtime.store.alive():
        found.append(Missing("store", "the job store does not answer"))
    if not runtime.dispatcher.alive:
        found.append(Missing("worker", "no slot works", "restart the service"))
    troubles = [engine.trouble() for engine in runtime.engines]
    overall = await runtime.stock.overall()
    if all(troubles):
        found.append(Missing("engine", "; ".join(filter(None, troubles))))
    elif overall.state == "unknown":  # it was there a moment ago
        found.append(Missing("engine", "no ComfyUI answers"))
    layers = len(runtime.stock.layers)
    notes = []
    for weight in overall.weights:
        if not weight.missing:
            continue
        said = absent(weight, overall, layers)
        if weight.name in overall.needed:
            found.append(said)
        elif users := overall.only_some.get(weight.name):
            notes.append(replace(said, message=f"{said.message}: {users} need it"))
    return Found(found, notes)


def absent(weight: Weight, overall: Overall, layers: int) -> Missing:
    """Return what is to be said of a weight file that is not there."""
    folder = f"models/{weight.folder}".rstrip("/")
    message, hint = _words(weight, folder)
    return Missing(
        "weights",
        message,
        hint,
        file=weight.name,
        looked_in=folder if layers < 2 else f"{folder} of {layers} layers",
        near=weight.near and weight.near.rpartition("/")[2],
        done_bytes=weight.done_bytes if weight.found is not None else None,
        total_bytes=weight.size if weight.found is not None else None,
        eta_s=overall.eta_s if weight.coming else None,
    )


def _words(weight: Weight, folder: str) -> tuple[str, str | None]:
    if weight.found is None:
        return (
            f"ComfyUI does not list {weight.name}",
            f"put it into ComfyUI's {folder}",
        )
    if weight.found.usable:
        return (
            f"ComfyUI does not list {weight.name}, which is on the volume",
            f"tell ComfyUI of {folder}: `wan models path-map` writes how",
        )
    if weight.trouble is not None:
        return (
            f"{weight.name} could not be fetched ({weight.trouble.code}): {weight.why}",
            weight.trouble.hint or "it is tried again by itself",
        )
    if weight.found.reason is not None and weight.found.path is not None:
        return f"{weight.name} is {weight.state}: {scrub(weight.found.reason)}", None
    if not weight.coming:
        return f"{weight.name} is not there", "it is fetched when a request needs it"
    of = "" if weight.size is None else f" of {human(weight.size)}"
    done = f"{human(weight.done_bytes)}{of} are there"
    how = "being fetched" if weight.done_bytes else "to be fetched"
    return f"{weight.name} is {how}: {done}", None


def as_json(found: Found, runtime: Runtime) -> dict[str, object]:
    """Return the answer of GET /ready."""
    return {
        "ready": not found.missing,
        "missing": [_said(one) for one in found.missing],
        "notes": [_said(one) for one in found.notes],
        "timeline": runtime.timeline,
    }


def _said(one: Missing) -> dict[str, object]:
    return {k: v for k, v in asdict(one).items() if v is not None}

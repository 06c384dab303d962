"""
The HTTP routes, each also under /api.

Source: recorded answers of ComfyUI 0.3.64.
"""

from __future__ import annotations

import os
import platform
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from common.engine.definitions import WEIGHTS
from common.engine.engine import ENGINE
from common.engine.files import Outside, named_file
from common.engine.joblist import get_job, get_jobs
from common.engine.promptqueue import Item
from common.engine.sockets import FEATURES
from common.engine.transfer import upload, view
from common.engine.validate import problem, validate

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: ComfyUI's version whose node definitions and frames these are.
VERSION = "0.12.1"


def failed() -> web.Response:
    """Answer as aiohttp does when a handler of ComfyUI raises."""
    text = "500 Internal Server Error\n\nServer got itself in trouble"
    return web.Response(status=500, text=text)


async def _json(request: web.Request) -> dict[str, Any]:
    """
    Return the body.

    Raises:
        web.HTTPInternalServerError: it is not a JSON object; ComfyUI has no 400 for it.
    """
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        text = "500 Internal Server Error\n\nServer got itself in trouble"
        raise web.HTTPInternalServerError(text=text)
    return body


async def post_prompt(request: web.Request) -> web.Response:
    """Validate a graph and put it into the queue."""
    engine = request.app[ENGINE]
    try:
        body = await request.json()
    except ValueError:
        return failed()
    if not isinstance(body, dict) or not isinstance(body.get("prompt"), dict):
        text = "No prompt provided"
        error = problem("no_prompt", text, text)
        return web.json_response({"error": error, "node_errors": {}}, status=400)
    number = engine.next_number(body.get("number"), front=bool(body.get("front")))

    def image_exists(name: Any) -> str | None:
        try:
            found = named_file(engine.settings, str(name)).is_file()
        except Outside:
            found = False
        return None if found else f"Invalid image file: {name}"

    def audio_exists(name: Any) -> str | None:
        wrong = image_exists(name)
        return wrong and f"Invalid audio file: {name}"

    checks = {
        ("LoadImage", "image"): image_exists,
        ("LoadAudio", "audio"): audio_exists,
    }
    verdict = validate(body["prompt"], engine.library.definitions(), checks)
    if verdict.error is not None:
        answer = {"error": verdict.error, "node_errors": verdict.node_errors}
        return web.json_response(answer, status=400)
    extra_data = dict(body.get("extra_data") or {})
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    prompt_id = str(body.get("prompt_id", uuid.uuid4()))
    item = Item(number, prompt_id, verdict.graph, extra_data, verdict.outputs)
    node_errors = verdict.node_errors
    if engine.faults.take("node_errors_200"):
        node_errors = _invented_error(item)
    engine.queue.put(item)
    return web.json_response(
        {"prompt_id": prompt_id, "number": number, "node_errors": node_errors}
    )


def _invented_error(item: Item) -> dict[str, Any]:
    node_id = item.outputs[-1]
    error = problem("value_not_in_list", "Value not in list", "invented by a fault")
    return {
        node_id: {
            "errors": [error],
            "dependent_outputs": [node_id],
            "class_type": item.graph[node_id]["class_type"],
        }
    }


async def get_prompt(request: web.Request) -> web.Response:
    """Say how many prompts wait or run."""
    return web.json_response(request.app[ENGINE].exec_info())


async def get_queue(request: web.Request) -> web.Response:
    """List what runs and what waits."""
    running, pending = request.app[ENGINE].queue.snapshot()
    return web.json_response(
        {
            "queue_running": [item.as_list() for item in running],
            "queue_pending": [item.as_list() for item in pending],
        }
    )


async def post_queue(request: web.Request) -> web.Response:
    """Drop waiting prompts: some, or all."""
    body = await _json(request)
    queue = request.app[ENGINE].queue
    if body.get("clear"):
        queue.delete(None)
    if "delete" in body:
        queue.delete(body["delete"])
    return web.Response()


async def get_history(request: web.Request) -> web.Response:
    """Return finished prompts, oldest first; with max_items only the newest."""
    entries = list(request.app[ENGINE].queue.history().items())
    if "max_items" in request.query:
        limit = int(request.query["max_items"])
        entries = entries[-limit:] if limit > 0 else []
    return web.json_response({key: entry.as_json() for key, entry in entries})


async def get_history_of(request: web.Request) -> web.Response:
    """Return one finished prompt, or {}."""
    prompt_id = request.match_info["prompt_id"]
    entry = request.app[ENGINE].queue.history().get(prompt_id)
    return web.json_response({prompt_id: entry.as_json()} if entry else {})


async def post_history(request: web.Request) -> web.Response:
    """Drop finished prompts: some, or all."""
    body = await _json(request)
    queue = request.app[ENGINE].queue
    if body.get("clear"):
        queue.forget_history(None)
    if "delete" in body:
        queue.forget_history(body["delete"])
    return web.Response()


async def interrupt(request: web.Request) -> web.Response:
    """Stop what runs; with a prompt_id, only if that is what runs."""
    engine = request.app[ENGINE]
    prompt_id = None
    if await request.read():
        prompt_id = (await _json(request)).get("prompt_id")
    if not engine.faults.take("ignore_interrupt"):
        engine.queue.interrupt(prompt_id)
    return web.Response()


async def free(request: web.Request) -> web.Response:
    """Forget the cached results before the next prompt."""
    body = await _json(request)
    if body.get("unload_models") or body.get("free_memory"):
        request.app[ENGINE].executor.forget_cache.set()
    return web.Response()


async def object_info(request: web.Request) -> web.Response:
    """Return the node definitions, or that of one class, or {}."""
    definitions = request.app[ENGINE].library.definitions()
    wanted = request.match_info.get("class")
    if wanted is not None:
        definitions = {k: v for k, v in definitions.items() if k == wanted}
    return web.json_response(definitions)


async def models(request: web.Request) -> web.Response:
    """List the folders of weights, or the files of one."""
    folder = request.match_info.get("folder")
    if folder is None:
        return web.json_response(list(WEIGHTS))
    if folder not in WEIGHTS:
        return web.Response(status=404)
    return web.json_response(request.app[ENGINE].library.names(folder))


async def system_stats(request: web.Request) -> web.Response:
    """Describe the machine, and say that this is not the real thing."""
    total, available = _memory()
    memory = {"vram_total": total, "vram_free": available}
    memory |= {f"torch_{name}": size for name, size in memory.items()}
    system = {
        "os": os.name,
        "ram_total": total,
        "ram_free": available,
        "comfyui_version": VERSION,
        "embedded": request.app[ENGINE].settings.editor == "embedded",
        "python_version": sys.version,
        "pytorch_version": None,
        "embedded_python": False,
        "argv": ["common.engine"],
    }
    device = {"name": platform.processor() or "cpu", "type": "cpu", "index": None}
    return web.json_response({"system": system, "devices": [device | memory]})


def _memory() -> tuple[int, int]:
    """Return the machine's memory, total and free, in bytes; 0 where nobody says."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        counts = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0, 0
    return page * counts[0], page * counts[1]


async def features(request: web.Request) -> web.Response:
    """Say what the server can do."""
    return web.json_response(FEATURES)


async def root(request: web.Request) -> web.Response:
    """Say what this is to somebody who looks with a browser."""
    text = "The embedded engine speaks ComfyUI's protocol; it has no editor.\n"
    return web.Response(text=text)


def routes() -> list[web.AbstractRouteDef]:
    """Return all routes of ComfyUI that the engine has, with and without /api."""
    get: dict[str, Handler] = {
        "/prompt": get_prompt,
        "/queue": get_queue,
        "/history": get_history,
        "/history/{prompt_id}": get_history_of,
        "/view": view,
        "/object_info": object_info,
        "/object_info/{class}": object_info,
        "/models": models,
        "/models/{folder}": models,
        "/system_stats": system_stats,
        "/features": features,
    }
    post: dict[str, Handler] = {
        "/prompt": post_prompt,
        "/queue": post_queue,
        "/history": post_history,
        "/interrupt": interrupt,
        "/free": free,
        "/upload/image": upload,
    }
    table: list[web.AbstractRouteDef] = [
        web.get("/", root),
        web.get("/api/jobs", get_jobs),
        web.get("/api/jobs/{job_id}", get_job),
    ]
    for prefix in ("", "/api"):
        table += [web.get(prefix + path, handler) for path, handler in get.items()]
        table += [web.post(prefix + path, handler) for path, handler in post.items()]
    return table

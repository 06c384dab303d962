"""Routes for tests, which only an engine started with faults has: /embedded/*."""

from __future__ import annotations

from aiohttp import web

from common.engine.engine import ENGINE


async def post_faults(request: web.Request) -> web.Response:
    """Switch faults on or off; see `common.engine.faults` for their names."""
    engine = request.app[ENGINE]
    wanted = await request.json()
    at_once = {name: wanted.get(name) for name in ("close_sockets", "forget_prompt")}
    try:
        engine.faults.set({k: v for k, v in wanted.items() if k not in at_once})
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)
    if at_once["close_sockets"]:
        engine.sockets.cut_all()
    if at_once["forget_prompt"]:
        engine.queue.forget_all()
    engine.queue.hold(engine.faults.take("zombie") is not None)
    return web.json_response({})


async def get_log(request: web.Request) -> web.Response:
    """List every prompt that was accepted since the start, in that order."""
    return web.json_response(
        [
            {
                "prompt_id": item.prompt_id,
                "received": item.received,
                "state": item.state,
            }
            for item in request.app[ENGINE].queue.log
        ]
    )


ROUTES = [
    web.post("/embedded/faults", post_faults),
    web.get("/embedded/log", get_log),
]

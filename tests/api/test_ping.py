from tests.live import engine, wrapper


async def ping(live, **headers):
    """Return the status of GET /ping; it has no body."""
    async with live.http.get(f"{live.url}/ping", headers=headers) as answer:
        assert await answer.read() == b""
        return answer.status


async def test_a_start_and_an_illness_look_different(tmp_path):
    """204 until the engine answers, 200 then, 503 when it stops."""
    async with wrapper(tmp_path / "early", "http://127.0.0.1:9", reach=False) as live:
        assert await ping(live) == 204

    async with (
        engine(tmp_path / "engine") as url,
        wrapper(tmp_path / "data", url) as live,
    ):
        assert await ping(live) == 200
        live.runtime.dispatcher.draining = True
        assert await ping(live) == 503


async def test_a_probe_needs_no_key(tmp_path):
    """The load balancer has none."""
    async with (
        engine(tmp_path / "engine") as url,
        wrapper(tmp_path / "data", url, api_keys="key-of-anna") as live,
    ):
        assert await ping(live) == 200

"""What every request passes: hosts, origins, ids, limits; and how it is refused."""

import asyncio
import io
import time
from json import dumps

import aiohttp
import pytest
from sqlalchemy.exc import OperationalError

from common.api import gate, wire
from tests.api.conftest import call
from tests.live import SMALL, both


class TestHosts:
    @pytest.mark.parametrize(
        "host",
        ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b"],
    )
    async def test_a_name_that_is_not_ours_is_misdirected(self, live, host):
        """A web page may point its own name at 127.0.0.1."""
        status, _, body = await call(live, "GET", "/jobs", host=host)

        assert (status, body["code"]) == (421, "misdirected_request")

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "[::1]:8189"])
    async def test_loopback_has_several_names(self, live, host):
        """With and without a port."""
        assert (await call(live, "GET", "/jobs", host=host))[0] == 200

    async def test_a_name_that_is_none_is_refused(self, live):
        """400, and no error of ours."""
        assert (await call(live, "GET", "/jobs", host="[::1"))[0] == 400

    async def test_names_can_be_added(self, tmp_path):
        """WAN_ALLOWED_HOSTS, beside the loopback's own."""
        async with both(tmp_path, allowed_hosts="wan.example") as live:
            assert (await call(live, "GET", "/jobs", host="wan.example"))[0] == 200
            assert (await call(live, "GET", "/jobs"))[0] == 200
            assert (await call(live, "GET", "/jobs", host="x.example"))[0] == 421

    async def test_figures_are_asked_for_by_address(self, tmp_path):
        """Prometheus finds services by address, and has a key, which a page has not."""
        key = "a-key-of-prometheus"
        async with both(tmp_path, allowed_hosts="wan.example", api_keys=key) as live:
            with_key = {"authorization": f"Bearer {key}", "host": "10.1.2.3:8189"}
            assert (await call(live, "GET", "/metrics", **with_key))[0] == 200
            assert (await call(live, "GET", "/jobs", **with_key))[0] == 421
            assert (await call(live, "GET", "/metrics", host="10.1.2.3"))[0] == 401
        async with both(tmp_path / "open") as live:
            assert (await call(live, "GET", "/metrics", host="x.example"))[0] == 421


STUDIO = "https://studio.example"


class TestOrigins:
    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": f"{STUDIO}.evil.example"},
            {"origin": "http://127.0.0.1:1"},
            {"origin": "file://"},
            {"sec_fetch_site": "cross-site"},
            {"sec_fetch_site": "same-site"},
        ],
        ids=str,
    )
    async def test_pages_from_elsewhere_may_not_call(self, tmp_path, headers):
        """Nor read: no answer allows their origin."""
        async with both(tmp_path, cors_origins=STUDIO) as live:
            status, answered, body = await call(
                live, "POST", "/generate", json=SMALL, **headers
            )
            assert (status, body["code"]) == (403, "forbidden_origin")
            assert "Access-Control-Allow-Origin" not in answered
            asks = {"access_control_request_method": "POST"}
            _, answered, _ = await call(live, "OPTIONS", "/generate", **headers, **asks)
            assert "Access-Control-Allow-Origin" not in answered

    async def test_a_listed_page_may(self, tmp_path):
        """With a preflight, and the headers that it needs."""
        async with both(tmp_path, cors_origins=STUDIO, api_keys="k") as live:
            asks = {"access_control_request_method": "POST", "origin": STUDIO}
            status, answered, _ = await call(live, "OPTIONS", "/generate", **asks)
            assert status == 204
            assert answered["Access-Control-Allow-Origin"] == STUDIO
            assert "x-api-key" in answered["Access-Control-Allow-Headers"]
            headers = {
                "origin": STUDIO,
                "x_api_key": "k",
                "sec_fetch_site": "cross-site",
            }
            status, answered, _ = await call(
                live, "POST", "/generate", json=SMALL, **headers
            )
            assert status == 202
            assert answered["Access-Control-Allow-Origin"] == STUDIO
            assert "location" in answered["Access-Control-Expose-Headers"]
            assert "Origin" in answered["Vary"]
            refused = await call(live, "GET", "/jobs", origin=STUDIO)
            assert refused[1]["Access-Control-Allow-Origin"] == STUDIO

    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_our_own_page_may(self, live, scheme):
        """Also behind a proxy that speaks TLS for us."""
        own = f"{scheme}://{live.url.partition('://')[2]}"
        headers = {"origin": own, "sec_fetch_site": "same-origin"}

        assert (await call(live, "POST", "/generate", json=SMALL, **headers))[0] == 202

    async def test_a_socket_from_elsewhere_is_refused(self, held):
        """Browsers open WebSockets to anybody; we check who asks."""
        job = await held.job(seed=1)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await held.http.ws_connect(
                f"{held.url}/jobs/{job['id']}/ws", origin="https://evil.example"
            )

        assert refused.value.status == 403


class TestRequestId:
    async def test_a_given_id_comes_back(self, live):
        """In the header, and in the body of a refusal."""
        _, answered, body = await call(live, "GET", "/jobs/x", x_request_id="order-7.1")

        assert answered["X-Request-Id"] == body["request_id"] == "order-7.1"

    @pytest.mark.parametrize("given", ["a b", "<script>", "x" * 65, "é", ""])
    async def test_nonsense_is_replaced(self, live, given):
        """Nobody writes into our log."""
        _, answered, _ = await call(live, "GET", "/health", x_request_id=given)

        assert len(answered["X-Request-Id"]) == 32


async def test_a_wrong_method_is_told_the_right_ones(live):
    """405 with `Allow`."""
    for path, allowed in (("/generate", "POST"), ("/jobs/x", "DELETE, GET")):
        _, headers, _ = await call(live, "PATCH", path)
        assert headers["Allow"] == allowed


JSON = {"content_type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("POST", "/generate", {"data": b"{", **JSON}, 400, "malformed_request"),
        ("GET", f"/{'x' * 9000}", {}, 400, "malformed_request"),
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("PUT", "/generate", {}, 405, "method_not_allowed"),
        (
            "POST",
            "/generate",
            {"data": io.BytesIO(bytes(25 << 20)), **JSON},
            413,
            "payload_too_large",
        ),
        ("POST", "/generate", {"data": b"x"}, 415, "unsupported_media_type"),
        (
            "POST",
            "/generate",
            {"data": b"x", "content_encoding": "gzip", **JSON},
            415,
            "unsupported_media_type",
        ),
        ("POST", "/generate", {"json": {}}, 422, "invalid_input"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_every_refusal_is_a_problem(live, method, path, options, status, code):
    """One shape (RFC 9457), the right code, and the headers that all answers have."""
    answered, headers, body = await call(live, method, path, **options)

    assert (answered, body["status"], body["code"]) == (status, status, code)
    assert headers["Content-Type"] == "application/problem+json"
    assert body["type"] == "about:blank"
    assert body["request_id"] == headers["X-Request-Id"]
    assert body["title"]
    assert body["detail"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"


async def test_a_bug_of_ours_is_told_as_one(live, monkeypatch, caplog):
    """500 without a word of what it was; the log has it, under the request's id."""

    def broken(job):
        raise ZeroDivisionError("canary /secret/path")

    monkeypatch.setattr(live.runtime.ledger, "view", broken)
    job = {"id": live.runtime.ledger.open_ids()}
    status, headers, body = await call(live, "POST", "/generate", json=SMALL)

    assert job == {"id": []}
    assert (status, body["code"]) == (500, "internal")
    assert "canary" not in dumps(body)
    assert headers["X-Frame-Options"] == "DENY"
    (record,) = [r for r in caplog.records if body["request_id"] in r.getMessage()]
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_store_that_is_away_is_told(live, monkeypatch):
    """503 with a time to come again; a running process is healthy still."""

    async def away(work):
        raise OperationalError("canary", {}, Exception("canary"))

    monkeypatch.setattr(live.runtime.store._database, "read", away)
    monkeypatch.setattr(live.runtime.store._database, "write", away)
    status, headers, body = await call(live, "POST", "/generate", json=SMALL)

    assert (status, body["code"]) == (503, "store_unavailable")
    assert int(headers["Retry-After"]) > 0
    assert "canary" not in dumps(body)
    assert (await call(live, "GET", "/health"))[0] == 200
    assert (await call(live, "GET", "/ready"))[0] == 503


async def test_a_body_that_drips_is_cut_off(live, monkeypatch):
    """408 once the time is up, whatever still comes."""
    monkeypatch.setattr(gate, "BODY_S", 0.3)
    monkeypatch.setattr(wire, "REST_S", 0.3)
    port = int(live.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000"
    writer.write(f"{head}\r\ncontent-type: application/json\r\n\r\n".encode())

    async def drip():
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    started = time.monotonic()
    async with asyncio.timeout(10):
        answer = await reader.read()
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started > 0.2


async def test_no_route_is_handed_more_than_the_limit():
    """Whatever it would read: the bytes are counted as they come."""
    handed = []

    async def greedy(scope, receive, send):
        while True:
            handed.append((await receive())["body"])

    chunks = [{"type": "http.request", "body": b"12345678", "more_body": True}] * 5
    sent = []

    async def receive():
        return chunks.pop()

    async def send(message):
        sent.append(message)

    policy = gate.Policy(
        keys=(), hosts=frozenset(), origins=frozenset(), max_body_bytes=20
    )
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b""}
    await gate.Gate(greedy, policy)({**scope, "headers": []}, receive, send)

    assert b"".join(handed) == b"1234567812345678"
    assert sent[0]["status"] == 413

"""What a service says of itself: card, health, readiness, machine, metrics, page."""

import base64
import hashlib
import re

import pytest

import common
from tests.live import engine, fastwan, mistyped, wrapper


async def test_the_card_says_what_is_served(live):
    """Name, kind, version, weights with their state, limits, links that work."""
    status, card = await live.get("/")

    assert status == 200
    assert card["name"] == "fastwan2.2-5b-network-storage"
    assert (card["title"], card["kind"]) == ("FastWan 2.2 5B", "video")
    assert card["version"] == common.__version__
    assert {model["file"] for model in card["models"]} == set(
        fastwan().workflow.weights()
    )
    assert {model["state"] for model in card["models"]} == {"present"}
    assert card["limits"]["queue"] == 100
    for name, url in card["urls"].items():
        async with live.http.get(live.url + url) as answer:
            assert answer.status == (405 if name == "generate" else 200), name


async def test_a_process_that_serves_is_healthy(live):
    """Whatever else is wrong."""
    assert await live.get("/health") == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/health", "/ready", "/ping", "/health/models"])
async def test_a_monitor_may_ask_for_the_head_alone(live, path):
    """The same status and headers as for GET, without the body."""
    async with (
        live.http.head(live.url + path) as head,
        live.http.get(live.url + path) as whole,
    ):
        assert head.status == whole.status
        assert head.headers.get("Content-Length") == whole.headers.get("Content-Length")
        assert await head.read() == b""


async def test_a_service_that_can_work_is_ready(live):
    """200, nothing missing, and how long the start took."""
    status, body = await live.get("/ready")

    assert (status, body["ready"], body["missing"]) == (200, True, [])
    assert body["notes"] == []
    assert body["timeline"]["store"] <= body["timeline"]["engine"]


async def test_a_missing_weight_is_named_with_what_is_near(tmp_path):
    """503: which file, where it was looked for, and what may be meant."""
    service = mistyped(tmp_path / "mistyped")
    async with (
        engine(tmp_path / "engine") as engine_url,
        wrapper(tmp_path / "data", engine_url, service=service) as live,
    ):
        status, body = await live.get("/ready")
        card = (await live.get("/"))[1]

    (missing,) = body["missing"]
    assert status == 503
    assert missing["what"] == "weights"
    assert missing["file"] == "wan2.2_vea.safetensors"
    assert missing["looked_in"] == "models/vae"
    assert missing["near"] == "wan2.2_vae.safetensors"
    states = {model["file"]: model["state"] for model in card["models"]}
    assert states.pop("wan2.2_vea.safetensors") == "missing"
    assert set(states.values()) == {"present"}


async def test_an_engine_that_is_away_is_named(tmp_path):
    """503, while jobs may be sent and wait; weights are unknown then."""
    async with wrapper(tmp_path, "http://127.0.0.1:9", reach=False) as live:
        status, body = await live.get("/ready")
        card = (await live.get("/"))[1]

    assert status == 503
    assert [missing["what"] for missing in body["missing"]] == ["engine"]
    assert {model["state"] for model in card["models"]} == {"unknown"}


async def test_the_machine_is_described(held):
    """Memory, disk, engines, and how many jobs wait and run."""
    await held.job(seed=1)
    status, body = await held.get("/system")

    assert status == 200
    assert body["queue"] == {"waiting": 1, "running": 1}
    assert 0 < body["ram"]["used_bytes"] < body["ram"]["total_bytes"]
    assert 0 < body["disk"]["free_bytes"] < body["disk"]["total_bytes"]
    assert isinstance(body["gpus"], list)
    (described,) = body["engines"]
    assert described["reachable"]
    assert described["version"]


async def test_metrics_count_jobs(held):
    """In the words of Prometheus."""
    await held.job(seed=1)
    async with held.http.get(f"{held.url}/metrics") as answer:
        text = await answer.text()

    assert answer.headers["Content-Type"].startswith("text/plain")
    values = dict(re.findall(r"^(\w+) ([\d.]+)$", text, re.MULTILINE))
    assert float(values["wan_queue_depth"]) == 1
    assert float(values["wan_jobs_running"]) == 1
    assert float(values["wan_watchers"]) == 0
    assert float(values["wan_engines_reachable"]) == 1


async def test_the_page_runs_its_own_scripts_only(live):
    """What the policy lets run is what the page has, and nothing a caller sends."""
    async with live.http.get(f"{live.url}/docs") as answer:
        html = await answer.text()
        policy = dict(
            part.strip().split(" ", 1)
            for part in answer.headers["Content-Security-Policy"].split(";")
        )

    assert answer.content_type == "text/html"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in policy["script-src"]
    inline = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(inline) == 1
    for script in inline:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy["script-src"]
    assert policy["script-src"].split()[0] == "'self'"
    assert "http" not in re.sub(r"<title>.*?</title>", "", html)
    assert not re.search(r" on\w+=", html)


async def test_the_page_needs_no_other_server(live):
    """What it loads is served beside it, with its type, and may be kept."""
    async with live.http.get(f"{live.url}/docs") as answer:
        html = await answer.text()
    sources = re.findall(r'(?:src|href)="(/[^"]+)"', html)
    assert len(sources) == 2
    for source in sources:
        async with live.http.get(live.url + source) as answer:
            text = await answer.text()
        kind = "text/javascript" if source.endswith(".js") else "text/css"
        assert (answer.status, answer.content_type) == (200, kind)
        assert answer.headers["Cache-Control"] == "max-age=86400"
        assert "swagger-ui" in text

    for name in ("redoc.standalone.js", "..%2F__init__.py"):
        async with live.http.get(f"{live.url}/docs/{name}") as answer:
            assert answer.status == 404

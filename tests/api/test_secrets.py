"""What must stay in the log, and what must not even get there."""

import asyncio
import json
import logging
import sqlite3

import aiohttp
import pytest

from tests.api.conftest import caller
from tests.live import both
from tests.pictures import png

KEY = "canary-key-5f1e"
PATH = "/canary/models/secret.safetensors"
PROMPT = "canary-prompt a red fox"
NAME = "canary-name.png"


@pytest.fixture
async def failed(tmp_path, caplog):
    """Fail a job whose every part is a canary; return all that was said anywhere."""
    caplog.set_level(logging.DEBUG)
    said = []
    async with (
        both(tmp_path, api_keys=KEY) as live,
        caller(live, authorization=f"Bearer {KEY}") as anna,
    ):
        await live.fault(
            error_at_node={
                "node": "KSampler",
                "type": "RuntimeError",
                "message": f"cannot open {PATH}",
            }
        )
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", png(256, 256), filename=NAME)
        said.append(await anna.post("/uploads", data=form))
        job = await anna.job(prompt=PROMPT, image=said[0][1]["id"])
        said += [frame async for frame in anna.events(job["id"])]
        for path in (
            f"/jobs/{job['id']}",
            f"/status/{job['id']}",
            "/jobs",
            "/",
            "/ready",
            "/system",
        ):
            said.append(await anna.get(path))
        async with anna.http.get(f"{anna.url}/metrics") as answer:
            said.append(await answer.text())
        said.append(await live.get("/jobs"))
        said.append(await live.submit({"x-api-key": f"{KEY}x"}))
    database = sqlite3.connect(live.runtime.data / "jobs.sqlite3")
    dump = "\n".join(database.iterdump())
    database.close()
    log = "\n".join(
        logging.Formatter("%(message)s").format(record) for record in caplog.records
    )
    return json.dumps(said), dump, log, str(tmp_path)


async def test_callers_see_their_own_words_only(failed):
    """No key, no path of the machine, no traceback, no name of a file."""
    said, _, _, here = failed

    assert '"failed"' in said
    assert PROMPT in said
    for secret in (KEY, PATH, "/canary", NAME, here, "Traceback", 'File \\"', ".py"):
        assert secret not in said, secret


async def test_the_store_keeps_no_secrets(failed):
    """Keys as digests; errors in our words."""
    _, dump, _, here = failed

    assert PROMPT in dump
    for secret in (KEY, PATH, NAME, here, "Traceback"):
        assert secret not in dump, secret


async def test_the_log_keeps_no_keys_and_no_prompts(failed):
    """At any level; but what ComfyUI said is there for who runs the service."""
    _, _, log, _ = failed

    assert "failed" in log
    for secret in (KEY, PROMPT, NAME):
        assert secret not in log, secret


async def test_a_key_in_an_address_is_neither_taken_nor_logged(tmp_path, caplog):
    """Addresses end in the logs of proxies."""
    caplog.set_level(logging.DEBUG)
    async with both(tmp_path, api_keys=KEY) as live:
        async with asyncio.timeout(10):
            status, body = await live.get(f"/jobs?api_key={KEY}")

        assert status == 401
        assert KEY not in json.dumps(body)
    ours = [r for r in caplog.records if r.name.startswith(("common", "uvicorn"))]
    assert not [r for r in ours if KEY in r.getMessage()]

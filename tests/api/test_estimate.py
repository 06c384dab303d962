"""POST /estimate: what a request would take, before anything is made."""

import io
import json
import uuid
from dataclasses import replace

import pytest

from common.comfy import Device, EngineInfo
from tests.api.conftest import call
from tests.live import SMALL
from tests.pictures import png

GIB = 2**30
LARGE = {"prompt": "a fox", "width": 1280, "height": 704, "frames": 121}


def on_a_card(live, monkeypatch, gib, **more):
    """Let the engine say that it has a card."""
    device = Device("cuda:0 Some Card", "cuda", gib * GIB, gib * GIB)
    info = replace(EngineInfo("0.12.1", False, (device,)), **more)
    for engine in live.runtime.engines:
        monkeypatch.setattr(engine.comfy, "info", info)


async def estimate(live, **fields):
    """POST /estimate and return its body."""
    status, body = await live.post("/estimate", json=fields)
    assert status == 200, body
    return body


async def test_the_embedded_engine_has_no_card(live):
    """The model's need is told all the same; whether it fits is not known."""
    found = await estimate(live, **LARGE)

    assert found == {
        "vram_gb": 16.9,
        "card_gb": None,
        "seconds": None,
        "fits": None,
        "advice": [],
    }


async def test_a_card_is_compared(live, monkeypatch):
    """It fits, or the advice does."""
    on_a_card(live, monkeypatch, 24)
    large = await estimate(live, **LARGE)
    on_a_card(live, monkeypatch, 12)
    small = await estimate(live, **LARGE)
    again = await estimate(live, **{**LARGE, **small["advice"][0]["set"]})

    assert (large["fits"], large["advice"]) == (True, [])
    assert (small["fits"], small["card_gb"]) == (False, 12 * GIB / 1e9)
    assert again["fits"] is True
    assert again["vram_gb"] == small["advice"][0]["vram_gb"]


@pytest.mark.parametrize(
    "more",
    [{"devices": ()}, {"devices": (Device("cpu", "cpu", 2**35, 2**34),)}],
    ids=["none", "cpu"],
)
async def test_without_a_card_nothing_is_said_to_fit(live, monkeypatch, more):
    """The machine's memory is not the card's."""
    on_a_card(live, monkeypatch, 24, **more)

    found = await estimate(live, **LARGE)

    assert (found["fits"], found["card_gb"]) == (None, None)


async def test_time_comes_from_runs_on_this_card(live, monkeypatch):
    """Three of them; those of another card do not count."""
    for seed in range(3):
        job = await live.job(seed=seed)
        assert (await live.finished(job["id"]))["status"] == "succeeded"
    here = await estimate(live, **SMALL)
    more = await estimate(live, **{**SMALL, "steps": 4})
    on_a_card(live, monkeypatch, 24)
    elsewhere = await estimate(live, **SMALL)

    low, high = here["seconds"]
    assert 0 <= low <= high
    assert more["seconds"][1] >= high
    assert elsewhere["seconds"] is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": ""},
        {"prompt": "a fox", "frames": 120},
        {"prompt": "a fox", "width": 1280, "height": 1280},
        {"prompt": "a fox", "steps": "8"},
        {"prompt": "a fox", "colour": "red"},
        {"prompt": "a fox", "seconds": 5, "frames": 121},
        {"prompt": "a fox", "image": str(uuid.UUID(int=5))},
        {"prompt": "a fox", "image": "ftp://example.com/x.png"},
        {"prompt": "a fox", "loras": [{"name": "nowhere"}]},
    ],
    ids=json.dumps,
)
async def test_what_generate_refuses_is_refused_in_the_same_words(live, fields):
    """Field, message and hint."""
    refusals = []
    for path in ("/generate", "/estimate"):
        status, headers, body = await call(live, "POST", path, json=fields)
        assert headers["Content-Type"] == "application/problem+json"
        del body["request_id"]
        refusals.append((status, body))

    assert refusals[0] == refusals[1]
    assert refusals[0][0] == 422


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"prompt": "a", "prompt": "b"}'])
async def test_what_is_no_request_is_refused(live, data):
    """The body is read by the same code."""
    status, _, body = await call(
        live, "POST", "/estimate", data=data, **{"content-type": "application/json"}
    )

    assert (status, body["code"]) == (400, "malformed_request")


async def test_nothing_is_kept(live):
    """Neither a job nor a file, whatever is sent along; and a stored file is taken."""
    _, upload = await live.post("/uploads", data={"file": io.BytesIO(png(64, 64))})
    before = await live.runtime.store.known_ids()

    with_id = await estimate(live, **SMALL, image=upload["id"])
    with_url = await estimate(live, **SMALL, image="https://example.com/fox.png")
    status, with_file = await live.post(
        "/estimate", data={"prompt": "a fox", "image": io.BytesIO(png(64, 64))}
    )

    assert status == 200
    assert with_id == with_url == await estimate(live, **SMALL)
    assert with_file["vram_gb"] == 16.9
    assert await live.runtime.store.known_ids() == before
    assert (await live.get("/jobs"))[1]["jobs"] == []


async def test_a_key_is_asked_for(keyed):
    """As by every route that makes something."""
    anna, _, nobody = keyed

    assert (await call(nobody, "POST", "/estimate", json=LARGE))[0] == 401
    assert (await call(anna, "POST", "/estimate", json=LARGE))[0] == 200


async def test_another_ones_upload_is_not_there(keyed):
    """An estimate tells nobody which uploads exist."""
    anna, bert, _ = keyed
    _, upload = await anna.post("/uploads", data={"file": io.BytesIO(png(64, 64))})
    fields = {**SMALL, "image": upload["id"]}

    assert (await call(anna, "POST", "/estimate", json=fields))[0] == 200
    assert (await call(bert, "POST", "/estimate", json=fields))[0] == 422


async def test_a_job_that_ran_out_of_memory_says_what_would_fit(live, monkeypatch):
    """With the numbers of its own request and of the card."""
    on_a_card(live, monkeypatch, 12)
    await live.fault(oom_at_node="KSampler", times=2)
    failed = await live.finished((await live.job(**LARGE))["id"])

    assert failed["error"]["code"] == "out_of_memory"
    hint = failed["error"]["hint"]
    assert "16.9 GB at 1280×704×121" in hint
    assert "12.9 GB" in hint
    assert "960×512 takes 12.8 GB" in hint


async def test_the_document_shows_it(live):
    """Body, answer and an example."""
    document = (await live.get("/openapi.json"))[1]
    schema = document["components"]["schemas"]["EstimateView"]
    operation = document["paths"]["/estimate"]["post"]

    assert set(schema["example"]) == set(schema["properties"])
    assert (
        operation["requestBody"]
        == document["paths"]["/generate"]["post"]["requestBody"]
    )

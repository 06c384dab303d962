"""
Every service's workflows over a real ComfyUI, from a request to a checked video.

WAN_TEST_COMFYUI=http://127.0.0.1:8188 pytest -m comfyui tests/test_real_services.py

That ComfyUI needs the weights (tiny ones with random numbers do) and must be idle.
"""

import base64
import os

import pytest

from common.service import load
from tests.live import wrapper
from tests.pictures import png
from tests.sounds import sound
from tests.test_services import FOLDERS, fields, media

pytestmark = [pytest.mark.comfyui, pytest.mark.timeout(300)]

TO_THE_END_S = 200


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
async def live(request, tmp_path):
    """Each service in turn over the real ComfyUI."""
    url = os.environ.get("WAN_TEST_COMFYUI")
    if not url:
        pytest.skip("WAN_TEST_COMFYUI names no ComfyUI")
    service = load(request.param)
    if not service.comfyui:
        pytest.skip("it runs without ComfyUI")
    async with wrapper(tmp_path / "data", url.rstrip("/"), service=service) as running:
        async with running.http.get(running.url + "/ready") as answer:
            ready = await answer.json()
        if answer.status != 200:
            pytest.skip(f"that ComfyUI is not ready for it: {ready}")
        yield running


def sent(kind, seconds=0.5):
    """Return a file as it travels in JSON."""
    data = png() if kind == "image" else sound("wav", seconds)
    return base64.b64encode(data).decode()


async def made(live, **given):
    """Run a request to its end and return its one output."""
    status, job = await live.post("/generate", json=given)
    assert status == 202, job
    job = await live.finished(job["id"], TO_THE_END_S)
    assert job["status"] == "succeeded", job["error"]
    assert job["engine"] == "comfyui"
    (output,) = job["outputs"]
    return output


@pytest.mark.parametrize("files", ["needed", "first", "all"])
async def test_a_request_becomes_a_checked_video(live, files):
    """With the files it needs, with its first, and with all: each graph is run."""
    service = live.runtime.service
    kinds = service.request.media_fields()
    given = {name: sent(kinds[name].kind) for name in media(service, files)}
    asked = fields(service, **given)

    output = await made(live, **asked)

    assert (output["width"], output["height"]) == (asked["width"], asked["height"])
    assert output["frames"] == asked["frames"]
    assert output["audio"] == ("audio" in kinds)


async def test_a_long_recording_takes_several_windows(live):
    """A clip is as long as the speech, beyond what the model makes in one go."""
    service = live.runtime.service
    if "audio" not in service.request.media_fields():
        pytest.skip("it takes no speech")
    given = fields(service, image=sent("image"), audio=sent("audio", 4.3), steps=1)
    del given["frames"]

    output = await made(live, **given)

    assert output["duration_s"] == pytest.approx(4.3, abs=0.05)
    assert output["audio"]

"""InfiniteTalk over an embedded engine: speech in, a talking video out."""

import base64
import io
from itertools import pairwise

import aiohttp
import av
import numpy as np
import pytest

from common.engine import definitions
from common.service import find, load
from tests.live import both
from tests.pictures import png
from tests.sounds import FORMS, film, sound


@pytest.fixture
async def live(tmp_path):
    """Serve InfiniteTalk."""
    async with both(tmp_path, service=load(find("infinite-talk-v1"))) as running:
        yield running


def text(data):
    return base64.b64encode(data).decode()


def request(**given):
    small = {"prompt": "x", "width": 256, "height": 256, "steps": 1, "seed": 7}
    return {**small, "image": text(png(128, 128)), **given}


async def done(live, body):
    status, job = await live.post("/generate", json=body)
    assert status == 202, job
    job = await live.finished(job["id"])
    assert job["status"] == "succeeded", job["error"]
    return job


async def decoded(live, job):
    """Return the frames, and the sound as one row."""
    [output] = job["outputs"]
    async with live.http.get(live.url + output["url"]) as answer:
        data = await answer.read()
    with av.open(io.BytesIO(data)) as film_:
        frames = [frame.to_ndarray(format="rgb24") for frame in film_.decode(video=0)]
    with av.open(io.BytesIO(data)) as film_:
        heard = [frame.to_ndarray()[0] for frame in film_.decode(audio=0)]
    return frames, np.concatenate(heard)


@pytest.mark.parametrize("form", FORMS)
async def test_speech_becomes_a_video_of_its_length(live, form):
    """In each form; the answer already says how many frames there will be."""
    body = request(audio=text(sound(form, 0.6)))
    status, accepted = await live.post("/generate", json=body)
    assert status == 202, accepted
    job = await live.finished(accepted["id"])
    [output] = job["outputs"]

    assert accepted["request"]["frames"] == pytest.approx(15, abs=2)
    assert (output["frames"], output["fps"]) == (accepted["request"]["frames"], 25)
    assert output["audio"] is True


async def test_windows_and_sound_fit_together(live):
    """Three windows; the sound is heard, and the mouth is open when it is loud."""
    job = await done(live, request(audio=text(sound("wav", 7.0))))

    frames, heard = await decoded(live, job)
    assert len(frames) == 175
    assert len(heard) / 16_000 == pytest.approx(7.0, abs=0.2)
    assert np.abs(heard).max() > 0.5
    # The tone swells twice a second; the mouth is a dark spot on flat grey.
    dark = [float((frame[130:190, 100:156] < 90).mean()) for frame in frames]
    loud = [np.sin(np.pi * n / 12.5) ** 2 for n in range(175)]
    assert np.corrcoef(dark, loud)[0, 1] > 0.8
    joints = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
    assert max(joints[80], joints[152]) < max(joints[:80]) * 1.5


@pytest.mark.parametrize("seconds", [1.0, 2.5], ids=["one window", "two"])
async def test_two_people_speak_one_after_the_other(live, seconds):
    """As long as both recordings, handed in as parts of a form."""
    form = aiohttp.FormData()
    files = {
        "image": png(128, 128),
        "audio": sound("opus", seconds),
        "audio_2": sound("mp3", seconds),
        "mask": png(128, 128),
        "mask_2": png(128, 128),
    }
    for name, data in files.items():
        form.add_field(name, data, filename=name)
    for name, value in {"prompt": "x", "width": "256", "height": "256"}.items():
        form.add_field(name, value)
    status, job = await live.post("/generate", data=form)
    assert status == 202, job
    job = await live.finished(job["id"])

    assert job["status"] == "succeeded", job["error"]
    assert job["outputs"][0]["frames"] == 50 * seconds
    assert job["request"]["turn_s"] == seconds
    retried = await live.post(f"/jobs/{job['id']}/retry")
    assert (retried[0], retried[1]["request"]) == (202, job["request"])
    _, heard = await decoded(live, job)
    halves = np.array_split(heard, 2)
    assert [float(np.abs(half).max()) > 0.5 for half in halves] == [True, True]


async def uploaded(live, data):
    form = aiohttp.FormData()
    form.add_field("file", data, filename="whatever.txt")
    return await live.post("/uploads", data=form)


async def test_an_upload_is_told_by_its_content(live):
    """A recording has a length, a picture a size; each fits its own field."""
    status, speech = await uploaded(live, sound("m4a", 1.0))
    _, picture = await uploaded(live, png(128, 96))

    assert (status, speech["kind"]) == (201, "audio")
    assert speech["content_type"] == "audio/wav"
    assert speech["duration_s"] == pytest.approx(1.0, abs=0.05)
    assert (picture["kind"], picture["width"]) == ("image", 128)
    job = await done(live, request(audio=speech["id"], image=picture["id"]))
    retried = await live.post(f"/jobs/{job['id']}/retry")
    assert retried[1]["request"]["frames"] == job["request"]["frames"]
    assert (await live.finished(retried[1]["id"]))["status"] == "succeeded"
    status, refused = await live.post(
        "/generate", json=request(audio=picture["id"], image=picture["id"])
    )
    assert (status, refused["errors"][0]["field"]) == (422, "audio")


async def test_a_data_uri_says_audio(live):
    """And one that says image does not fit."""
    data = text(sound("wav", 0.4))
    job = await done(live, request(audio=f"data:audio/wav;base64,{data}"))
    status, refused = await live.post(
        "/generate", json=request(audio=f"data:image/png;base64,{data}")
    )

    assert job["outputs"][0]["frames"] == 10
    assert (status, refused["errors"][0]["field"]) == (422, "audio")


@pytest.mark.parametrize(
    ("given", "status", "field"),
    [
        ({}, 422, "audio"),
        ({"audio": text(png())}, 415, "audio"),
        ({"audio": text(film())}, 415, "audio"),
        ({"audio": text(sound("wav", 0.1))}, 422, "audio"),
        ({"audio": text(sound("wav", 1.0)[:-9])}, 422, "audio"),
        ({"audio": text(sound("wav", 1.0)), "image": text(sound())}, 415, "image"),
        ({"audio": text(sound("wav", 1.0)), "fps": 24}, 422, "fps"),
        ({"audio": text(sound("wav", 1.0)), "motion_frames": 8}, 422, "motion_frames"),
        ({"audio": text(sound("wav", 1.0)), "frames": 26}, 422, "frames"),
        ({"audio": text(sound("wav", 1.0)), "turn_s": 0.5}, 422, "turn_s"),
        ({"audio": text(sound("wav", 1.0)), "mask": text(png())}, 422, "audio_2"),
        (
            {
                "audio": text(sound()),
                "audio_2": text(sound()),
                "mask": text(png(128, 128)),
                "mask_2": text(png(64, 64)),
            },
            422,
            "mask_2",
        ),
    ],
    ids=[
        "none", "a picture", "a video", "too short", "cut off", "image is sound",
        "another pace", "motion", "too many frames", "turn", "mask alone", "mask size",
    ],
)  # fmt: skip
async def test_bad_input_names_its_field(live, given, status, field):
    """Nothing is stored, and the answer says what to send."""
    answer = await live.post("/generate", json=request(**given))

    assert (answer[0], answer[1]["errors"][0]["field"]) == (status, field)
    assert (await live.get("/jobs"))[1]["jobs"] == []


@pytest.mark.parametrize("empty", ["audio", "image"])
async def test_an_empty_file_names_its_field(live, empty):
    """It is a file still, though nothing is in it."""
    form = aiohttp.FormData()
    for name, data in {"image": png(128, 128), "audio": sound(), empty: b""}.items():
        form.add_field(name, data, filename=name)
    form.add_field("prompt", "x")
    status, body = await live.post("/generate", data=form)

    assert (status, body["errors"][0]["field"]) == (415, empty)
    assert (await live.get("/jobs"))[1]["jobs"] == []


@pytest.mark.parametrize("speakers", ["single", "multi"])
async def test_a_volume_with_one_of_the_patches_is_ready(
    tmp_path, monkeypatch, speakers
):
    """For as many speakers as it is made for; others are refused by `audio_2`."""
    there = (f"wan2.1_infiniteTalk_{speakers}_fp16.safetensors",)
    monkeypatch.setitem(definitions.WEIGHTS, "model_patches", there)
    voice, face = text(sound("wav", 0.4)), text(png(128, 128))
    bodies = {
        "single": request(audio=voice),
        "multi": request(audio=voice, audio_2=voice, mask=face, mask_2=face),
    }
    async with both(tmp_path, service=load(find("infinite-talk-v1"))) as live:
        job = await done(live, bodies.pop(speakers))
        [other] = bodies.values()
        status, refused = await live.post("/generate", json=other)
        ready, said = await live.get("/ready")

    assert job["outputs"]
    assert (status, refused["errors"][0]["field"]) == (422, "audio_2")
    assert (ready, len(said["notes"])) == (200, 1)

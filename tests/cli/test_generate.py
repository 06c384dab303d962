import contextlib
import json
from pathlib import Path

import pytest
import requests

from common.cli import follow
from common.client import Client
from common.ports import next_free
from tests.live import SMALL
from tests.pictures import png

TINY = ("--width", 256, "--height", 256, "--frames", 5, "--steps", 2, "--seed", 7)


def test_a_clip_is_made_and_saved_here(wan, service):
    """Without --out the clip lies here, under a name that says whose it is."""
    said = wan("generate", "fastwan2.2-5b-n", "a fox", *TINY, "--url", service.url)

    assert said.code == 0, said.err
    path = Path(said.out.strip())
    assert path.read_bytes()[4:8] == b"ftyp"
    assert path.name.startswith("fastwan2.2-5b-network-storage-")
    assert "done (100%)" in said.err
    assert "256×256, 5 frames at 24 fps, seed 7" in said.err


def test_options_reach_the_service(wan, service, tmp_path):
    """A picture is uploaded, and --json tells every change and the end."""
    picture = tmp_path / "first.png"
    picture.write_bytes(png())

    said = wan(
        *("generate", "fastwan2.2-5b-network-storage", "a fox", *TINY),
        *("--image", picture, "--negative-prompt", "rain", "--sampler", "uni_pc"),
        *("--cfg", 2.5, "--out", tmp_path / "out" / "fox.mp4"),
        *("--url", service.url, "--json"),
    )

    assert said.code == 0, said.err
    jobs = [json.loads(line) for line in said.out.splitlines()]
    request = jobs[-1]["request"]
    assert jobs[-1]["status"] == "succeeded"
    assert request["image"]
    assert (request["negative_prompt"], request["sampler"]) == ("rain", "uni_pc")
    assert request["cfg"] == 2.5
    assert (tmp_path / "out" / "fox.mp4").is_file()


def test_out_may_be_a_folder(wan, service, tmp_path):
    """In a folder the clip has a name of its own."""
    said = wan(
        "generate",
        "fastwan2.2-5b-n",
        "a",
        *TINY,
        "--out",
        tmp_path,
        "--url",
        service.url,
    )

    assert Path(said.out.strip()).parent == tmp_path
    assert len(list(tmp_path.glob("*.mp4"))) == 1


def test_a_clip_that_cannot_be_written_is_not_lost(wan, service, tmp_path):
    """The hint names the job and the address of its file, which is there."""
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "fox.mp4"

    said = wan(
        *("generate", "fastwan2.2-5b-n", "a", *TINY),
        *("--out", out, "--url", service.url),
    )

    assert said.code == 1
    assert f"error: cannot write {out}: " in said.err
    url = said.err.split("its file is at ")[1].strip()
    assert requests.get(url, timeout=10).content[4:8] == b"ftyp"
    assert f"'wan jobs watch {url.split('/')[4]} --url {service.url}'" in said.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--frames", 120), "error: frames: must be 4n + 1"),
        (("--frames", 120), "(use 1"),
        (("--width", 100, "--height", 101), "       height: "),
        (("--lora", "nix:0.5"), "loras.0.name: no such LoRA"),
        (("--image", "http://127.0.0.1/x.png"), "image: "),
    ],
)
def test_a_refusal_names_field_and_cure(wan, service, options, words):
    """What the service refuses is said as `field: message (hint)`."""
    said = wan("generate", "fastwan2.2-5b-n", "a fox", *options, "--url", service.url)

    assert said.code == 1
    assert words in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nix", "a fox"), "is not a service: "),
        (("fastwan2.2-5b-n",), "Missing argument"),
        (("fastwan2.2-5b-n", "a fox", "--steps", "many"), "--steps"),
        (("fastwan2.2-5b-n", "a fox", "--nix", "1"), "No such option"),
        (
            ("fastwan2.2-5b-n", "a fox", "--image", "nix.png"),
            "there is no file nix.png",
        ),
        (("fastwan2.2-5b-n", "a fox", "--lora", "x:y"), "is no number"),
    ],
    ids=["service", "no prompt", "no number", "no option", "no file", "no strength"],
)
def test_wrong_use_is_said(wan, service, arguments, words):
    """What cannot be meant ends with code 2 and a word about it."""
    said = wan("generate", *arguments, "--url", service.url)

    assert said.code == 2
    assert words in said.err


def test_a_failed_job_says_what_to_do(wan, service):
    """The job's own message and hint, and code 1."""
    service.fault(oom_at_node="KSampler")
    try:
        said = wan("generate", "fastwan2.2-5b-n", "a fox", *TINY, "--url", service.url)
    finally:
        service.fault(reset=True)

    assert said.code == 1
    assert "error: job " in said.err
    assert "hint:" in said.err


def test_nobody_listens(wan):
    """Where no service answers, the way to start one is said."""
    url = f"http://127.0.0.1:{next_free('127.0.0.1', 0)}"

    said = wan("generate", "fastwan2.2-5b-n", "a fox", "--url", url)

    assert said.code == 4
    assert f"no service answers at {url}" in said.err
    assert "wan serve SERVICE" in said.err


def test_an_engine_is_no_service(wan, service):
    """Another server at the address is not taken for a service."""
    said = wan("generate", "fastwan2.2-5b-n", "a fox", "--url", service.engine_url)

    assert said.code != 0
    assert "Traceback" not in said.err


def test_help_lists_the_fields(wan):
    """The help of a service is made of its request."""
    said = wan("generate", "fastwan2.2-5b-n", "--help")

    assert said.code == 0
    for word in (
        "--negative-prompt",
        "--lora",
        "256 to 1280 in steps of 32",
        "WAN_API",
    ):
        assert word in said.out


def test_ctrl_c_cancels(service, monkeypatch):
    """An interrupt asks the service to stop the job, and says so."""
    service.fault(hang_at_node="KSampler")
    try:
        with Client(service.url) as client:
            job = client.submit(SMALL)

            def interrupt(_job):
                raise KeyboardInterrupt

            monkeypatch.setattr(follow, "_lines", lambda: interrupt)
            with pytest.raises(follow.Stop, match=f"canceled job {job['id']}") as end:
                follow.follow(client, job, as_json=False)
            assert end.value.code == 130
            assert client.get(job["id"])["status"] in ("canceling", "canceled")
    finally:
        service.fault(reset=True)


def test_a_job_that_waits_is_explained(capsys):
    """Somebody who waits for want of an engine is told so."""

    class Waiting:
        def hasty(self):
            return contextlib.nullcontext(self)

        def get(self, _job_id):
            return {"status": "queued"}

        def ready(self):
            missing = {"message": "no ComfyUI answers", "hint": "start it"}
            return {"missing": [missing]}

    with follow.explained(Waiting(), "x", after_s=0) as timer:
        timer.join(10)

    assert "waiting: no ComfyUI answers (start it)" in capsys.readouterr().err

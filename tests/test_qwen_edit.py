"""Qwen image edit, end to end: its own routes, several pictures, bad ones."""

import base64
import contextlib
import importlib.util
import io

import aiohttp
import pytest
from PIL import Image

from common.cli.screen import Stop
from common.engine.editors import EditorMissing, WeightsMissing, editor
from common.engine.editors.weights import MODEL, PIPELINE
from common.jobs import supply
from common.jobs.outcome import Done, Spoiled
from common.runtime import Runtime
from common.service import find, load
from common.settings import BadSettings, Settings
from tests.live import both, fastwan
from tests.models.shelf import shelf
from tests.pictures import png
from tests.range_server import Fault


@pytest.fixture
async def live(tmp_path):
    async with both(tmp_path, service=load(find("qwen-image-edit-nunchaku"))) as live:
        yield live


def encoded(picture=None, form="PNG", **options):
    """Return a picture as it travels in JSON."""
    if picture is None:
        return base64.b64encode(png(96, 64)).decode()
    file = io.BytesIO()
    picture.save(file, form, **options)
    return base64.b64encode(file.getvalue()).decode()


async def test_three_pictures_become_two(live):
    """By multipart at /edit; each output is whole, marked by number and different."""
    form = aiohttp.FormData()
    for name in ("image", "image_2", "image_3"):
        form.add_field(name, png(96, 64), filename="a.png", content_type="image/png")
    for name, value in {"prompt": "winter", "count": 2, "steps": 2}.items():
        form.add_field(name, str(value))
    status, job = await live.post("/edit", data=form)
    assert status == 202, job
    done = await live.finished(job["id"])

    assert done["status"] == "succeeded", done["error"]
    assert [one["name"] for one in done["outputs"]] == ["image.png", "image-2.png"]
    seen = set()
    for output in done["outputs"]:
        async with live.http.get(live.url + output["url"]) as answer:
            data = await answer.read()
        picture = Image.open(io.BytesIO(data))
        assert picture.format == "PNG"
        # 96×64 at about a megapixel, in multiples of 16.
        assert picture.size == (1248, 832) == (output["width"], output["height"])
        assert picture.info == {}
        seen.add(output["sha256"])
    assert len(seen) == 2


@pytest.mark.parametrize("path", ["/generate", "/edit", "/edit-image"])
async def test_the_other_names_are_the_same_route(live, path):
    """In the document, too."""
    sent = {"prompt": "x", "image": encoded(), "width": 256, "steps": 1, "height": 256}
    status, job = await live.post(path, json=sent)
    _, document = await live.get("/openapi.json")

    assert status == 202, job
    assert (await live.finished(job["id"]))["status"] == "succeeded"
    own, first = (document["paths"][one]["post"] for one in (path, "/generate"))
    assert own["requestBody"] == first["requestBody"]
    assert own["summary"] == "Make an image"


GOOD = {
    "CMYK": lambda: encoded(Image.new("CMYK", (64, 64)), "JPEG"),
    "16 bit": lambda: encoded(Image.new("I;16", (64, 64))),
    "palette": lambda: encoded(Image.new("P", (64, 64))),
    "grey": lambda: encoded(Image.new("L", (64, 64))),
    "clear": lambda: encoded(Image.new("RGBA", (64, 64))),
}
FRAME = Image.new("RGB", (64, 64))
ANIMATED = {
    "save_all": True,
    "append_images": [Image.new("RGB", (64, 64), (255, 0, 0))],
}
BAD = {
    "animated png": {"image": encoded(FRAME, "PNG", **ANIMATED)},
    "animated webp": {"image": encoded(FRAME, "WEBP", **ANIMATED)},
    "gif": {"image": encoded(FRAME, "GIF")},
    "bomb": {"image_2": base64.b64encode(png(30000, 30000, rows=1)).decode()},
    "cut off": {"image_3": base64.b64encode(png(64, 64, rows=9)).decode()},
    "no picture": {"image": None},
    "too long": {"image": encoded(Image.new("RGB", (1600, 180)))},
    "width of 17s": {"width": 272 + 1},
    "count 0": {"count": 0},
    "count 5": {"count": 5},
    "too large": {"width": 2048, "height": 2048},
    "other side": {"width": 2048, "image": encoded(Image.new("RGB", (100, 300)))},
}
FIELD = {"width of 17s": "width", "too large": "height", "other side": "image"}


async def test_pictures_of_any_mode_are_taken(live):
    """They are RGB by the time the engine sees them."""
    for mode, make in GOOD.items():
        sent = {"prompt": "x", "image": make(), "width": 256, "height": 256, "steps": 1}
        status, job = await live.post("/edit", json=sent)
        assert status in {202, 415, 422}, (mode, job)
        if status == 202:
            done = await live.finished(job["id"])
            assert done["status"] == "succeeded", (mode, done["error"])
        else:
            assert "image" in str(job["errors"]), mode


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests_are_refused_by_field(live, name):
    """And nothing runs."""
    sent = {"prompt": "x", "image": encoded(), **BAD[name]}
    status, body = await live.post("/edit", json=sent)

    assert status in {413, 415, 422}, body
    field = FIELD.get(name) or ("count" if "count" in name else next(iter(BAD[name])))
    assert field in str(body.get("errors") or body["detail"]), body
    assert (await live.get("/jobs"))[1]["jobs"] == []


async def test_one_bad_picture_spoils_all(live):
    """All outputs are published, or none; and found again after a crash."""
    sent = {"prompt": "x", "image": encoded(), "width": 512, "count": 3, "steps": 1}
    _, job = await live.post("/edit", json=sent)
    await live.finished(job["id"])
    runtime = live.runtime
    job = await runtime.ledger.get(job["id"], "")
    comfy = runtime.engines[0].comfy
    collector = runtime.dispatcher._collector
    history = (await comfy.state(job.prompt_id)).history
    (files,) = (files for files in history.files_by_node.values() if files)
    folder = runtime.files.job(job.id)

    found = await collector.find(job)
    assert found.outputs == job.outputs

    (folder / "image-2.png").write_bytes(b"\x89PNG broken")
    assert await collector.find(job) is None
    assert not (folder / "image.png").exists()

    few = await collector.collect(job, Done(tuple(files[:2]), {}), comfy)
    assert isinstance(few, Spoiled)
    assert "2 of 3" in few.error.message


def test_a_service_of_comfyui_is_not_run_by_the_editor(tmp_path):
    """Its engine would paint, and call that the model."""
    settings = Settings.read(data=tmp_path, engine="nunchaku")
    with pytest.raises(BadSettings, match="nunchaku"):
        Runtime(fastwan(), settings)


@pytest.mark.parametrize(
    ("variable", "options", "port"),
    [
        (None, [], 8000),
        ("8123", [], 8123),
        ("", [], 8000),
        ("8123", ["--port", "8124"], 8124),
    ],
    ids=["nothing", "WAN_PORT", "empty", "both"],
)
def test_it_serves_on_the_port_that_is_named(monkeypatch, variable, options, port):
    """Else on 8000; either is taken or refused, and no other is looked for."""
    program = start_program()
    if variable is None:
        monkeypatch.delenv("WAN_PORT", raising=False)
    else:
        monkeypatch.setenv("WAN_PORT", variable)

    def stop(settings):
        raise Stop(f"{settings.port} {'port' in settings.model_fields_set}")

    monkeypatch.setattr(program, "listener", stop)

    with pytest.raises(Stop, match=f"^{port} True$"):
        program.app(options, standalone_mode=False)


def test_an_engine_that_is_none_is_refused_by_its_option(capsys):
    """The option is named, and no variable that nobody set."""
    with pytest.raises(SystemExit) as end:
        start_program().app(["--engine", "foo"])

    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "--engine" in said
    assert "WAN_ENGINE" not in said


def start_program():
    """Return main.py as a module."""
    path = find("qwen-image-edit-nunchaku") / "main.py"
    spec = importlib.util.spec_from_file_location("qwen_main", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_a_model_that_cannot_run_is_said(live, monkeypatch):
    """The job fails with a code of its own, what is missing, and where to read on."""

    def missing(*_):
        raise EditorMissing("nunchaku is not installed")

    monkeypatch.setattr("common.engine.nodes.edit.editor", missing)
    _, job = await live.post("/edit", json={"prompt": "x", "image": encoded()})
    job = await live.finished(job["id"])

    assert (job["status"], job["attempt"]) == ("failed", 1)
    assert job["error"]["code"] == "model_unavailable"
    assert "nunchaku is not installed" in job["error"]["message"]
    assert "README" in job["error"]["hint"]


async def test_it_is_ready_where_no_volume_is_looked_at(live):
    """On the embedded engine nothing reads the model, so nothing waits for it."""
    status, body = await live.get("/ready")

    assert (status, body["missing"]) == (200, [])
    assert (await live.get("/health/models"))[1]["state"] == "ready"


async def test_a_job_waits_for_the_model_that_its_node_loads(tmp_path, monkeypatch):
    """No input names a file of it; it is fetched all the same, and then it is ready."""
    monkeypatch.setattr(supply, "RETRY_S", (0.1, 0.1))
    with published(tmp_path) as (there, given):
        there.server.fault = lambda asked: Fault(status=404)
        async with both(tmp_path, **given) as live:
            _, job = await live.post("/edit", json={"prompt": "x", "image": encoded()})
            status, early = await live.get("/ready")
            there.server.fault = lambda asked: None
            done = await live.finished(job["id"])
            late, body = await live.get("/health/models")

    assert status == 503
    assert {one["file"] for one in early["missing"]} == set(there.names)
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    assert (late, body["state"]) == (200, "ready")
    path = f"models/diffusers/{PIPELINE}/vae/vae.safetensors"
    assert (tmp_path / "root" / path).is_file()


async def test_weights_that_vanished_are_fetched_and_the_edit_tried_again(
    tmp_path, monkeypatch
):
    """As those of any other service; only what cannot be fetched fails the job."""
    painter = editor("embedded", None)
    path = tmp_path / "root/models/diffusion_models/svdq.safetensors"

    class Strict:
        def edit(self, task, on_step):
            if not path.is_file():
                raise WeightsMissing("there is no svdq.safetensors")
            return painter.edit(task, on_step)

    monkeypatch.setattr("common.engine.nodes.edit.editor", lambda *_: Strict())
    with published(tmp_path) as (_, given):
        async with both(tmp_path, **given) as live:
            body = {"prompt": "x", "image": encoded()}
            _, job = await live.post("/edit", json=body)
            first = await live.finished(job["id"])
            path.unlink()
            for blob in (tmp_path / "root/blobs/sha256").glob("*/*"):
                blob.unlink()
            _, job = await live.post("/edit", json=body)
            second = await live.finished(job["id"])

    assert (first["status"], first["attempt"]) == ("succeeded", 1)
    assert (second["status"], second["attempt"]) == ("succeeded", 2)
    assert path.is_file()


@contextlib.contextmanager
def published(folder):
    """Publish a model of two files as the one that the node loads, and say where."""
    with shelf(folder) as there:
        there.put("svdq.safetensors", where="diffusion_models")
        there.put("vae.safetensors", where=f"diffusers/{PIPELINE}/vae")
        manifest = there.write()
        text = manifest.read_text("utf-8").replace("m@1", MODEL)
        manifest.write_text(text, "utf-8")
        yield (
            there,
            {
                "service": load(find("qwen-image-edit-nunchaku")),
                "models": folder / "root",
                "models_manifest": manifest,
                "models_ensure": True,
                "models_margin_gb": 0,
            },
        )

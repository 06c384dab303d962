"""The 14B service: two models, pairs of LoRAs, a last frame, and no picture at all."""

import base64

import aiohttp
import pytest

from common.engine import definitions
from common.errors import InvalidInput
from common.service import find, load
from tests.live import SMALL, both
from tests.pictures import png

SERVICE = load(find("wan2.2-14b-loras"))
PICTURE = base64.b64encode(png(256, 256)).decode()
T2V = [
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
    "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
]
I2V = [name.replace("t2v", "i2v") for name in T2V]


def graph(**fields):
    """Return the workflow of a request, with a picture unless it says otherwise."""
    given = {"prompt": "a cat", "image": "u1", "seed": 7, **fields}
    return SERVICE.apply(SERVICE.request.accept(given))


def chain(patched, side):
    """Return the (file, strength) that lie between a model and its shift."""
    node = patched.node(f"{side}-noise shift")
    found = []
    while (node := patched.nodes[node["inputs"]["model"][0]])["inputs"].get("model"):
        found.append((node["inputs"]["lora_name"], node["inputs"]["strength_model"]))
    assert f"_{side.lower()}_noise_14B" in node["inputs"]["unet_name"]
    return found[::-1]


def lightning(kind, version, side):
    return (
        f"wan2.2_{kind}_lightx2v_4steps_lora_{version}_{side}_noise.safetensors",
        1.0,
    )


@pytest.mark.parametrize(
    ("given", "switch"),
    [
        ({}, 3),
        ({"steps": 2}, 1),
        ({"steps": 5}, 2),
        ({"steps": 20, "switch_step": 19}, 19),
        ({"steps": 20, "switch_step": 1}, 1),
    ],
    ids=str,
)
def test_the_models_share_the_steps(given, switch):
    """The first hands over what noise is left; the second adds none, and ends."""
    patched = graph(**given)
    high = patched.node("High-noise sampler")["inputs"]
    low = patched.node("Low-noise sampler")["inputs"]
    steps = given.get("steps", 6)

    assert (high["steps"], low["steps"]) == (steps, steps)
    assert (high["start_at_step"], high["end_at_step"]) == (0, switch)
    assert (low["start_at_step"], low["end_at_step"]) == (switch, steps)
    assert (high["add_noise"], low["add_noise"]) == ("enable", "disable")
    assert (high["noise_seed"], low["noise_seed"]) == (7, 0)
    assert high["return_with_leftover_noise"] == "enable"
    assert low["return_with_leftover_noise"] == "disable"
    assert low["latent_image"] == [patched.id_of("High-noise sampler"), 0]


def test_each_model_has_its_own_guidance():
    """Sampler, scheduler and shift are common to both."""
    patched = graph(cfg_high_noise=3.0, cfg_low_noise=1.0, shift=8.0, sampler="lcm")

    assert patched.node("High-noise sampler")["inputs"]["cfg"] == 3.0
    assert patched.node("Low-noise sampler")["inputs"]["cfg"] == 1.0
    for side in ("High", "Low"):
        assert patched.node(f"{side}-noise shift")["inputs"]["shift"] == 8.0
        assert patched.node(f"{side}-noise sampler")["inputs"]["sampler_name"] == "lcm"


@pytest.mark.parametrize(
    ("lora", "high", "low"),
    [
        ({"name": "one"}, [("one", 1.0)], [("one", 1.0)]),
        ({"name": "one", "strength": 0.5}, [("one", 0.5)], [("one", 0.5)]),
        (
            {"name": "h", "name_low": "l", "strength_low": 0.25},
            [("h", 1.0)],
            [("l", 0.25)],
        ),
        ({"name": "one", "strength_low": 0.0}, [("one", 1.0)], []),
        ({"name": "one", "strength": 0.0, "strength_low": 0.8}, [], [("one", 0.8)]),
    ],
    ids=["both", "both weaker", "a pair", "high alone", "low alone"],
)
def test_loras_go_to_the_models_they_are_for(lora, high, low):
    """Behind Lightning, in their order; strength 0 loads nothing."""
    patched = graph(loras=[lora, {"name": "last"}])

    assert chain(patched, "High") == [
        lightning("i2v", "v1", "high"),
        *high,
        ("last", 1.0),
    ]
    assert chain(patched, "Low") == [lightning("i2v", "v1", "low"), *low, ("last", 1.0)]


def test_without_lightning_its_loaders_are_gone():
    """The shift reads the model itself, or the first LoRA."""
    patched = graph(lightning=False, loras=[{"name": "one"}])

    assert chain(patched, "High") == chain(patched, "Low") == [("one", 1.0)]
    assert not any("Lightning" in n["_meta"]["title"] for n in patched.nodes.values())


def test_a_last_frame_is_linked_only_when_it_is_given():
    """One node serves both; without a last frame its loader is gone."""
    with_end, without = graph(end_image="u2"), graph()

    assert with_end.node("Last frame")["inputs"]["image"] == "u2"
    assert "end_image" in with_end.node("Latent")["inputs"]
    assert "end_image" not in without.node("Latent")["inputs"]
    assert "start_image" in without.node("Latent")["inputs"]
    assert len(without.nodes) == len(with_end.nodes) - 1


def test_without_an_image_the_other_models_are_taken():
    """The text-to-video workflow, with the same fields in their places."""
    patched = graph(image=None, prompt="a dog", width=256, loras=[{"name": "one"}])

    assert set(T2V) <= set(patched.weights())
    assert patched.node("Latent")["class_type"] == "EmptyHunyuanLatentVideo"
    assert patched.node("Latent")["inputs"]["width"] == 256
    assert patched.node("Positive prompt")["inputs"]["text"] == "a dog"
    assert chain(patched, "Low") == [lightning("t2v", "v1.1", "low"), ("one", 1.0)]


def test_the_workflows_are_left_as_they_were():
    """Applying a request is pure."""
    before = {one: repr(workflow) for one, workflow in SERVICE.workflows.items()}
    graph(lightning=False, loras=[{"name": "one"}])
    graph(image=None, lightning=False)

    assert {one: repr(w) for one, w in SERVICE.workflows.items()} == before


def test_the_largest_size_is_the_models_own():
    """720p for 81 frames; smaller frames may be longer."""
    accept = SERVICE.request.accept
    assert accept({"prompt": "x", "width": 1280, "height": 704, "frames": 81})
    assert accept({"prompt": "x", "frames": 181})
    with pytest.raises(InvalidInput, match=r"^frames: "):
        accept({"prompt": "x", "width": 1280, "height": 704, "frames": 85})


@pytest.fixture
async def live(tmp_path):
    """Serve it over the embedded engine."""
    async with both(tmp_path, service=SERVICE) as running:
        yield running


@pytest.mark.parametrize(
    "files",
    [{}, {"image": PICTURE}, {"image_url": PICTURE, "end_image": PICTURE}],
    ids=["text", "first frame", "first and last frame"],
)
async def test_a_request_becomes_a_video(live, files):
    """The file has the size, length and pace that were asked for."""
    high = "lightx2v-i2v-a14b-seko-v1-high_noise_model"
    job = await live.job(**files, steps=3, loras=[{"name": high}])
    done = await live.finished(job["id"])

    assert done["status"] == "succeeded", done["error"]
    [output] = done["outputs"]
    assert (output["width"], output["height"]) == (256, 256)
    assert (output["frames"], output["fps"]) == (5, 16)
    assert job["request"]["switch_step"] == 1
    [lora] = job["request"]["loras"]
    assert lora["name_low"] == high.replace("high", "low") + ".safetensors"
    assert (job["request"]["image"] is None) == (not files)
    status, again = await live.post(f"/jobs/{job['id']}/retry")
    assert (status, again["request"]) == (202, job["request"])


def form(**parts):
    """Return a multipart form; bytes become files."""
    data = aiohttp.MultipartWriter("form-data")
    for name, value in parts.items():
        file = {"filename": "x.png"} if isinstance(value, bytes) else {}
        data.append(value).set_content_disposition("form-data", name=name, **file)
    return data


async def test_an_alias_is_taken_as_a_file_part(live):
    """Multipart knows the other name too, as text and as a file."""
    small = {name: str(value) for name, value in SMALL.items()}
    status, job = await live.post(
        "/generate", data=form(**small, image_url=png(64, 64))
    )
    text = form(**small, image_url=PICTURE, lightning="false")
    second, other = await live.post("/generate", data=text)

    assert (status, second) == (202, 202), (job, other)
    assert len(job["request"]["image"]) == len(other["request"]["image"]) == 36
    assert other["request"]["lightning"] is False


async def test_the_document_knows_the_alias(live):
    """A client that checks requests by the schema may send it; forms do not show it."""
    schemas = (await live.get("/openapi.json"))[1]["components"]["schemas"]
    properties = schemas["Generate"]["properties"]

    assert properties["image_url"]["deprecated"] is True
    assert "x-ui" not in properties["image_url"]
    assert "starts with" in properties["image"]["description"]


LIGHTNING = [lightning("i2v", "v1", side)[0] for side in ("high", "low")]


@pytest.mark.parametrize(
    ("gone", "refused", "taken", "field"),
    [
        (T2V, {}, {"image": PICTURE}, "image"),
        (T2V[1:], {}, {"image": PICTURE}, "image"),
        (I2V, {"image": PICTURE}, {}, "image"),
        (LIGHTNING, {"image": PICTURE}, {"image": PICTURE, "lightning": False},
         "lightning"),
    ],
    ids=["no text-to-video", "half of it", "no image-to-video", "no Lightning"],
)  # fmt: skip
async def test_a_volume_with_some_weights_serves_what_it_can(
    tmp_path, monkeypatch, gone, refused, taken, field
):
    """A refusal names the field that avoids it, and the files; readiness notes them."""
    for folder, files in definitions.WEIGHTS.items():
        there = tuple(file for file in files if file not in gone)
        monkeypatch.setitem(definitions.WEIGHTS, folder, there)
    async with both(tmp_path, service=SERVICE) as live:
        status, body = await live.submit(**refused)
        accepted, _ = await live.submit(**taken)
        ready, said = await live.get("/ready")
        card = (await live.get("/"))[1]

    assert (status, body["code"], accepted, ready) == (422, "invalid_input", 202, 200)
    [error] = body["errors"]
    assert error["field"] == field
    assert "this volume has no weights" in error["message"]
    assert all(file in error["hint"] for file in gone)
    assert said["missing"] == []
    assert {note["file"] for note in said["notes"]} == set(gone)
    states = {model["file"]: model["state"] for model in card["models"]}
    assert {file for file, state in states.items() if state == "missing"} == set(gone)

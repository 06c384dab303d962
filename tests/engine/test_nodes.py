"""What single nodes do with good and bad inputs."""

import struct
from types import SimpleNamespace

import aiohttp
import pytest
from PIL import Image

from common.engine import EngineSettings, serve
from common.engine.definitions import Library
from common.engine.nodes.loaders import load_file
from common.engine.run import NodeFailed


def failure(frames):
    """Return the execution_error of a run."""
    [error] = [f["data"] for f in frames if f.get("type") == "execution_error"]
    return error


def still(*chain):
    """Return a graph: LoadImage in.png, these nodes, SaveImage."""
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}}}
    for class_type, inputs in (*chain, ("SaveImage", {"filename_prefix": "a/b"})):
        name = "images" if class_type == "SaveImage" else "image"
        node_id = str(len(graph) + 1)
        link = {name: [str(len(graph)), 0]}
        graph[node_id] = {"class_type": class_type, "inputs": inputs | link}
    return graph


@pytest.fixture
def photo(engine):
    """Put a picture of 40x20 into the input folder."""
    path = engine.settings.folder("input") / "in.png"
    Image.new("RGB", (40, 20), "orange").save(path)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header too small"),
        (struct.pack("<Q", 500) + b"{}", "invalid header length"),
        (b"version https://git-lfs.github.com/spec/v1", "header too large"),
    ],
    ids=["empty", "cut", "LFS pointer"],
)
async def test_a_broken_weight_file(engine, client, workflow, content, message):
    """A file that is there is listed, and fails at its loader as safetensors would."""
    folder = engine.settings.data / "models" / "loras"
    folder.mkdir(parents=True)
    (folder / "mine.safetensors").write_bytes(content)

    frames = await client.run(
        workflow(changes={"49": {"lora_name": "mine.safetensors"}})
    )

    error = failure(frames)
    assert error["node_type"] == "LoraLoaderModelOnly"
    assert error["exception_type"] == "safetensors._safetensors_rust.SafetensorError"
    assert message in error["exception_message"]


async def test_a_models_folder(tmp_path):
    """A models folder and its subfolders are offered with the built-in names."""
    for name in ("loras/mine.safetensors", "unet/a/b.safetensors", "vae/x.gguf"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    settings = EngineSettings(
        data=tmp_path / "d", port=0, models=(tmp_path / "models",)
    )
    async with (
        serve(settings) as engine,
        aiohttp.ClientSession(engine.url) as session,
        session.get("/object_info") as answer,
    ):
        known = await answer.json()

    def offered(class_type, name):
        return known[class_type]["input"]["required"][name][0]

    loras = offered("LoraLoaderModelOnly", "lora_name")
    assert "mine.safetensors" in loras
    assert "high_noise_model.safetensors" in loras
    assert "a/b.safetensors" in [
        name.replace("\\", "/") for name in offered("UNETLoader", "unet_name")
    ]
    assert offered("VAELoader", "vae_name") == [
        "wan2.2_vae.safetensors",
        "wan_2.1_vae.safetensors",
        "pixel_space",
    ]


async def test_weights_that_must_be_there(tmp_path):
    """Only a folder's files are offered, and one that vanishes fails its loader."""
    vae = tmp_path / "models" / "vae" / "mine.safetensors"
    vae.parent.mkdir(parents=True)
    vae.write_bytes(b"")
    settings = EngineSettings(
        data=tmp_path / "d", port=0, models=(tmp_path / "models",), strict=True
    )
    library = Library(settings)
    run = SimpleNamespace(library=library, pretend=lambda seconds: None)
    offered = [library.names(name) for name in ("vae", "loras", "diffusion_models")]
    vae.unlink()

    assert offered == [["mine.safetensors", "pixel_space"], [], []]
    with pytest.raises(NodeFailed, match="No such file"):
        load_file(run, "vae", "mine.safetensors")


async def test_a_text_as_picture(engine, client, photo):
    """A file that is no picture passes validation and fails at LoadImage."""
    photo.write_text("not a picture")

    assert failure(await client.run(still()))["node_type"] == "LoadImage"


async def test_another_picture_under_the_same_name(engine, client, photo):
    """A changed file is read again, an unchanged one is not."""
    await client.run(still())
    same = await client.run(still())
    Image.new("RGB", (40, 20), "navy").save(photo)
    changed = await client.run(still())

    cached = [
        frame["data"]["nodes"]
        for frame in (*same, *changed)
        if frame.get("type") == "execution_cached"
    ]
    assert cached == [["1", "2"], []]


@pytest.mark.parametrize(
    ("wanted", "crop", "size"),
    [
        ((10, 10), "disabled", (10, 10)),
        ((10, 10), "center", (10, 10)),
        ((20, 0), "disabled", (20, 10)),
        ((0, 0), "disabled", (40, 20)),
    ],
    ids=["stretched", "cropped", "one side", "as it is"],
)
async def test_scaling(engine, client, photo, wanted, crop, size):
    """ImageScale makes the size asked for; 0 follows from the other side."""
    inputs = {"width": wanted[0], "height": wanted[1], "crop": crop}

    await client.run(still(("ImageScale", inputs | {"upscale_method": "area"})))

    with Image.open(engine.settings.folder("output") / "a" / "b_00001_.png") as saved:
        assert saved.size == size
        assert saved.convert("RGB").getpixel((1, 1)) == (255, 165, 0)


async def test_pictures_of_a_film(engine, client, workflow):
    """SaveImage writes every frame, PreviewImage does it where nothing stays."""
    graph = workflow()
    graph["60"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    graph["61"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["8", 0], "filename_prefix": "f"},
    }

    frames = await client.run(graph)

    shown = {
        frame["data"]["node"]: frame["data"]["output"]["images"]
        for frame in frames
        if frame.get("type") == "executed"
    }
    assert [image["filename"] for image in shown["61"]] == [
        f"f_{number:05}_.png" for number in range(1, 6)
    ]
    assert {image["type"] for image in shown["60"]} == {"temp"}
    assert len(list(engine.settings.folder("temp").iterdir())) == 5


async def test_a_prefix_that_leads_out(engine, client, workflow):
    """A file name prefix cannot leave the output folder."""
    graph = workflow(changes={"58": {"filename_prefix": "../../evil"}})

    error = failure(await client.run(graph))

    assert error["node_type"] == "SaveVideo"
    assert "outside the output folder" in error["exception_message"]
    assert list(engine.settings.data.parent.glob("evil*")) == []


async def test_a_film_of_an_unsampled_latent(client, workflow):
    """Decoding a latent that no sampler has seen is no error."""
    graph = workflow(changes={"8": {"samples": ["55", 0]}})

    frames = await client.run(graph)

    assert "execution_success" in [frame.get("type") for frame in frames]


async def test_first_and_last_picture(engine, client, workflow, photo):
    """WanFirstLastFrameToVideo takes both pictures."""
    graph = workflow("wan22_i2v_14b", {"50": {"end_image": ["52", 0]}})
    graph["50"]["class_type"] = "WanFirstLastFrameToVideo"

    frames = await client.run(graph)

    assert "execution_success" in [frame.get("type") for frame in frames]


async def test_work_takes_its_time(tmp_path, connection, workflow):
    """At a low speed pretended work takes long, and an interrupt ends it at once."""
    settings = EngineSettings(data=tmp_path, port=0, speed=0.0001)
    async with serve(settings) as engine, connection(engine) as client:
        await client.submit(workflow())
        await client.until("executing", node="39")
        await client.say("/interrupt")
        frames = await client.until("executing", node=None)

    assert frames[0]["type"] == "execution_interrupted"

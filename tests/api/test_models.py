"""What callers are told of weights and LoRAs, whoever keeps them."""

import pytest

from common.models.needs import needs
from common.runtime import Runtime
from common.settings import BadSettings, Settings
from tests.api.conftest import caller
from tests.jobs.test_weights import published, serving
from tests.live import both, engine, fastwan, wrapper
from tests.models.tensors import tensors

VAE = "wan2.2_vae.safetensors"
LORAS = ("style_high_noise.safetensors", "style_low_noise.safetensors", "plain")


async def test_the_engines_list_is_what_is_known_of_weights_elsewhere(live):
    """Present, with what the manifest says: the volume is not ours to look at."""
    status, body = await live.get("/models")

    assert (status, body["state"], body["total_bytes"]) == (200, "ready", 0)
    assert [one["file"] for one in body["files"]] == [n.name for n in needs(fastwan())]
    vae = next(one for one in body["files"] if one["file"] == VAE)
    assert (vae["state"], vae["usable"], vae["listed"]) == ("present", True, True)
    assert (vae["folder"], vae["size_bytes"]) == ("vae", 1_409_400_960)
    assert vae["licence"] == "apache-2.0"
    assert (vae["where"], vae["layer"], vae["error"]) == (None, None, None)


async def test_the_models_of_the_manifest_have_their_own_health(live):
    """By id; 404 for one that this service does not load."""
    status, body = await live.get("/health/models/ti2v-5B@2.2.0")
    other, refusal = await live.get("/health/models/t2v-A14B@2.2.0")

    assert (status, body["state"], body["missing"]) == (200, "ready", [])
    assert other == 404
    assert "ti2v-5B@2.2.0" in refusal["detail"]


async def test_a_file_that_no_engine_lists_is_missing(tmp_path):
    """503 for those who ask whether the weights are there."""
    async with (
        engine(tmp_path / "engine", strict=True) as engine_url,
        wrapper(tmp_path / "data", engine_url) as live,
    ):
        models = (await live.get("/models"))[1]
        health = await live.get("/health/models")
        of_model = await live.get("/health/models/ti2v-5B@2.2.0")

    assert models["state"] == "missing"
    assert {one["state"] for one in models["files"]} == {"missing"}
    assert (health[0], health[1]["state"]) == (503, "missing")
    assert VAE in health[1]["missing"]
    assert (of_model[0], VAE in of_model[1]["missing"]) == (503, True)


async def test_nothing_is_known_while_no_engine_answers(tmp_path):
    """Neither of weights nor of LoRAs."""
    async with wrapper(tmp_path, "http://127.0.0.1:9", reach=False) as live:
        models = (await live.get("/models"))[1]
        loras = (await live.get("/loras"))[1]
        health = await live.get("/health/models")

    assert models["state"] == "unknown"
    assert {one["usable"] for one in models["files"]} == {None}
    assert loras == {"state": "unknown", "loras": []}
    assert health[0] == 503


async def test_weights_of_an_image_need_not_be_fetched(tmp_path):
    """A lower layer has them; each says which, and no folder of the machine is told."""
    with published(tmp_path) as there:
        first, *rest = needs(fastwan())
        for need in rest:
            put(tmp_path / "baked", f"{need.folder}/{need.name}", there)
        near = tmp_path / "root" / "models" / first.folder / first.name
        near = near.with_stem(f"{near.stem}s")
        near.parent.mkdir(parents=True)
        near.write_bytes(tensors())
        async with serving(
            tmp_path, there, models_layers=str(tmp_path / "baked"), models_margin_gb=1e9
        ) as live:
            files = (await live.get("/models"))[1]["files"]
            ready = (await live.get("/ready"))[1]

    missing, *others = files
    assert {one["layer"] for one in others} == {0}
    assert {one["state"] for one in others} == {"unverified"}
    assert (missing["state"], missing["where"]) == ("absent", None)
    assert missing["near"] == f"models/{first.folder}/{near.name}"
    said = next(one for one in ready["missing"] if one["file"] == first.name)
    assert said["looked_in"] == f"models/{first.folder} of 2 layers"
    assert said["near"] == near.name
    assert str(tmp_path) not in str([files, ready])


def put(root, path, there):
    """Copy what is published into a layer."""
    target = root / "models" / path
    target.parent.mkdir(parents=True)
    source = there.server.folder / target.name
    target.write_bytes(source.read_bytes())


async def test_loras_are_listed_with_their_other_half(tmp_path):
    """As the engine lists them; with sizes where we look at the volume."""
    with published(tmp_path) as there:
        folder = tmp_path / "root" / "models" / "loras"
        folder.mkdir(parents=True)
        for name in LORAS:
            (folder / name).with_suffix(".safetensors").write_bytes(tensors(1, 64))
        async with serving(tmp_path, there) as live:
            await live.finished((await live.job())["id"])
            status, body = await live.get("/loras")

    found = {one["name"]: one for one in body["loras"]}
    pair = {"high": LORAS[0], "low": LORAS[1]}
    assert (status, body["state"]) == (200, "ready")
    assert found["style_high_noise"]["pair"] == found["style_low_noise"]["pair"] == pair
    assert found["plain"]["pair"] is None
    assert found["plain"]["file"] == "plain.safetensors"
    assert found["plain"]["size_bytes"] == len(tensors(1, 64))
    assert (found["plain"]["state"], found["plain"]["licence"]) == ("present", None)
    fast = found["Wan2_2_5B_FastWanFullAttn_lora_rank_128_bf16"]
    assert fast["state"] == "verified"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models", 401),
        ("/loras", 401),
        ("/health/models", 200),
        ("/health/models/ti2v-5B@2.2.0", 200),
        ("/health/models-of-mine", 401),
    ],
)
async def test_probes_need_no_key(tmp_path, path, status):
    """What a machine asks to see whether we work, not what people ask."""
    async with both(tmp_path, api_keys="k") as live, caller(live) as nobody:
        assert (await nobody.get(path))[0] == status


async def test_a_manifest_that_cannot_be_read(tmp_path):
    """Keeps a service from starting that is to fetch, and from knowing sizes else."""
    bad = tmp_path / "models.toml"
    bad.write_text("schema = 1\n[[file]]\nname = 'x'\n", "utf-8")
    given = {"data": tmp_path / "data", "models_manifest": bad}

    with pytest.raises(BadSettings, match=r"models\.toml:\d"):
        Runtime(fastwan(), Settings.read(**given, models_ensure=True))
    async with both(tmp_path, models_manifest=bad) as live:
        files = (await live.get("/models"))[1]["files"]

    assert {one["state"] for one in files} == {"present"}
    assert {one["size_bytes"] for one in files} == {None}

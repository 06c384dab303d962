"""The checks before the first job, one by one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from common.comfy.engine import Device, EngineInfo
from common.runpod import fitness
from common.runpod.fitness import Unfit
from common.settings import Settings
from tests.live import engine, fastwan, mistyped, wrapper

CARD = Device("NVIDIA L40S", "cuda", 48 << 30, 47 << 30)
CPU = replace(CARD, name="cpu", type="cpu")


def seen(*devices, embedded=False):
    """Return a runtime whose ComfyUI sees these devices."""
    comfy = SimpleNamespace(info=EngineInfo("0.3.64", embedded, devices))
    return SimpleNamespace(engines=[SimpleNamespace(comfy=comfy)])


def test_a_comfyui_without_a_gpu_is_unfit():
    """The embedded engine needs none."""
    fitness.gpu(seen(CARD))
    fitness.gpu(seen(CPU, embedded=True))

    with pytest.raises(Unfit, match="sees no GPU"):
        fitness.gpu(seen(CPU))


async def test_absent_weights_make_a_worker_unfit(tmp_path):
    """Which, and where they belong."""
    wrong = mistyped(tmp_path / "mistyped")
    async with engine(tmp_path / "engine") as url:
        async with wrapper(tmp_path / "good", url) as live:
            await fitness.engine(live.runtime, 5)
            await fitness.weights(live.runtime)
        async with wrapper(tmp_path / "data", url, service=wrong) as live:
            with pytest.raises(Unfit, match=r"wan2\.2_vea\.safetensors.*models/vae"):
                await fitness.weights(live.runtime)


def test_a_part_of_a_file_is_not_the_file(tmp_path):
    """Its size is known from the manifest; a folder of nobody's is not looked into."""
    folder = tmp_path / "models" / "vae"
    folder.mkdir(parents=True)
    (folder / "wan2.2_vae.safetensors").write_bytes(b"half of it")
    known = SimpleNamespace(settings=Settings(models=tmp_path), service=fastwan())
    unknown = SimpleNamespace(settings=Settings(), service=fastwan())

    assert fitness.broken(known) == ["wan2.2_vae.safetensors"]
    assert fitness.broken(unknown) == []

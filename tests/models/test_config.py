"""Which roots the settings mean, lowest first; the last one is written."""

from pathlib import Path

import pytest

from common.models.config import Config
from common.settings import BadSettings, Settings

OWN, VOLUME, BAKED = (Path(f"/srv/{name}").absolute() for name in ("own", "vol", "img"))


@pytest.mark.parametrize(
    ("given", "roots"),
    [
        ({"models": VOLUME}, (VOLUME,)),
        ({"comfyui_dir": OWN}, (OWN,)),
        ({"comfyui_dir": OWN, "models": VOLUME}, (OWN, VOLUME)),
        ({"comfyui_dir": OWN, "models": OWN}, (OWN,)),
        (
            {"comfyui_dir": OWN, "models": VOLUME, "models_layers": (BAKED,)},
            (BAKED, OWN, VOLUME),
        ),
        (
            {"comfyui_dir": OWN, "models": VOLUME, "models_layers": (OWN, BAKED)},
            (BAKED, OWN, VOLUME),
        ),
        (
            {"comfyui_dir": OWN, "models": VOLUME, "engine": "nunchaku"},
            (VOLUME,),
        ),
    ],
    ids=[
        "a volume",
        "ComfyUI alone",
        "a volume over ComfyUI",
        "ComfyUI named twice",
        "an image below both",
        "ComfyUI as a layer too",
        "an engine that does not look there",
    ],
)
def test_comfyuis_own_folder_is_a_layer_that_is_only_read(given, roots):
    """It looks into its own folder in any case, before those of other layers."""
    assert Config.of(Settings(**given)).roots == roots


def test_headers_go_to_the_source_by_host():
    """As JSON in the environment; nobody sees their values in a repr."""
    headers = {"models.example.com": {"Authorization": "Bearer of-anna"}}
    settings = Settings(models_headers=headers)

    config = Config.of(settings)

    assert config.sources.host_headers == headers
    assert "of-anna" not in repr(settings) + repr(config)


def test_an_endpoint_that_is_no_url_is_refused_at_once():
    """Not file by file, after a while, by the name of a class."""
    with pytest.raises(BadSettings, match="HF_ENDPOINT"):
        Config.of(Settings(hf_endpoint="hf-mirror.example"))


@pytest.mark.parametrize("mirror", ["hf://ORG/REPO", "mirror", "/mnt/nas"])
def test_a_mirror_that_is_none_is_refused_with_what_may_be(mirror):
    """The Hub is no mirror of files by their sha256."""
    with pytest.raises(BadSettings, match="is not s3://, local:// or https://"):
        Config.of(Settings(models_mirror=mirror))


def test_a_cache_that_is_not_there_is_not_spoken_of(tmp_path):
    """Else each error has a line about a folder that this machine never had."""
    there = Config.of(Settings(hf_cache=tmp_path)).sources.hf_caches
    gone = Config.of(Settings(hf_cache=tmp_path / "none")).sources.hf_caches

    assert there[-1:] == (tmp_path,)
    assert tmp_path / "none" not in gone


def test_hugging_faces_own_variables_say_where_its_cache_is(tmp_path):
    """As its library has it: the cache itself, else `hub` in its home."""
    home, cache = tmp_path / "home", tmp_path / "cache"
    (home / "hub").mkdir(parents=True)
    cache.mkdir()

    def last(**given):
        return Config.of(Settings(**given)).sources.hf_caches[-1:]

    assert last(hf_home=home) == (home / "hub",)
    assert last(hf_home=home, hf_cache=cache) == (cache,)

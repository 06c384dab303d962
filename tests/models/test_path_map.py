import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.models.layer import Layer
from common.models.path_map import FOLDERS, path_map

COMFYUI = os.environ.get("WAN_TEST_COMFYUI_SOURCE")

ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
known = sys.argv[2]
sys.argv = sys.argv[:1]
import folder_paths
before = list(folder_paths.folder_names_and_paths)
from utils.extra_config import load_extra_path_config
load_extra_path_config(known)
after = {key: paths for key, (paths, _) in folder_paths.folder_names_and_paths.items()}
print(json.dumps([before, after]))
"""


@pytest.fixture
def layers(tmp_path):
    baked = Layer.open(tmp_path / 'im age: "1" #x', writable=False)
    return [baked, Layer.open(tmp_path / "volume")]


def test_each_layer_has_its_own_part(layers):
    """The volume is ComfyUI's default, the image's layer is not."""
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(path_map(layers))

    assert [part["base_path"] for part in found.values()] == [
        str(layer.root) for layer in layers
    ]
    assert [part.get("is_default", False) for part in found.values()] == [False, True]
    for part in found.values():
        assert FOLDERS.keys() <= part.keys()
    assert found["wan_0"]["text_encoders"].split() == [
        "models/text_encoders",
        "models/clip",
    ]


def test_a_root_may_have_any_name(tmp_path):
    """YAML knows no pairs of escapes, so what is not ASCII is written as it is."""
    yaml = pytest.importorskip("yaml")
    root = tmp_path / "w\U0001f600 \u00e8"

    found = yaml.safe_load(path_map([Layer.open(root)]))
    same = found["wan_0"]["base_path"] == str(root)

    assert same  # half a pair of escapes could not even be shown


def test_a_modern_key_for_each_folder_of_the_services():
    """The keys that older path maps lack are there, under ComfyUI's own names."""
    wanted = "diffusion_models text_encoders audio_encoders model_patches clip_vision"

    assert set(wanted.split()) <= FOLDERS.keys()


@pytest.mark.comfyui
@pytest.mark.skipif(
    COMFYUI is None, reason="WAN_TEST_COMFYUI_SOURCE names no folder with ComfyUI"
)
def test_comfyui_reads_it(layers, tmp_path):
    """The real loader finds each folder, the volume's own first."""
    path = tmp_path / "extra_model_paths.yaml"
    path.write_text(path_map(layers))
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(Path(COMFYUI).absolute()), str(path)],
        cwd=COMFYUI,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr[-500:]
    before, found = json.loads(asked.stdout.splitlines()[-1])

    assert set(before) - {"custom_nodes", "datasets"} == set(FOLDERS)
    assert set(found) == set(before)
    for key, (first, *_) in FOLDERS.items():
        assert found[key][0] == str(layers[1].root / "models" / first)
        assert str(layers[0].root / "models" / first) in found[key]


def test_the_text_is_the_same_each_time(layers):
    """A restart that changes nothing writes nothing new."""
    assert path_map(layers) == path_map(iter(layers))
    assert not re.search(r"\t| \n", path_map(layers))

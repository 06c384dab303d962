from pathlib import Path

import pytest

from common.models.needs import FOLDERS, models, needs, of_workflow
from common.service import folders, load
from common.workflow import Workflow

ROOT = Path(__file__).parent.parent.parent


def service(prefix):
    (folder,) = [one for one in folders(ROOT) if one.name.startswith(prefix)]
    return load(folder)


def test_a_file_of_two_workflows_is_needed_once():
    """Each need says which workflows name it."""
    found = {need.name: need for need in needs(service("wan2.2-14b"))}

    encoder = found["umt5_xxl_fp8_e4m3fn_scaled.safetensors"]
    text_only = found["wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors"]
    assert [one and one.title for one in encoder.variants] == [None, "text-to-video"]
    assert [one and one.title for one in text_only.variants] == ["text-to-video"]
    assert encoder.folder == "text_encoders"


def test_a_loader_that_feeds_nothing_is_for_some_requests():
    """A second speaker's patch is not what every request loads."""
    found = {need.name: need.always for need in needs(service("infinite"))}

    assert found["wan2.1_infiniteTalk_single_fp16.safetensors"]
    assert not found["wan2.1_infiniteTalk_multi_fp16.safetensors"]


def test_a_model_that_a_node_loads_whole_is_named():
    """Our own editor's files are no node's inputs."""
    assert needs(service("qwen")) == ()
    assert models(service("qwen")) == ("qwen-image-edit@2509",)
    assert models(service("wan2.2-14b")) == ()


@pytest.mark.parametrize("folder", folders(ROOT), ids=lambda folder: folder.name)
def test_each_loader_has_a_folder(folder):
    """No service loads by a node whose folder we do not know."""
    assert all(need.class_type in FOLDERS for need in needs(load(folder)))


def test_a_patched_workflow_has_its_own_needs():
    """What a request adds to the graph is seen."""
    workflow = Workflow({"1": {"class_type": "VAELoader", "inputs": {"vae_name": "v"}}})
    workflow.nodes["2"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"lora_name": "mine.safetensors"},
    }

    (need,) = of_workflow(workflow)
    assert (need.folder, need.name) == ("loras", "mine.safetensors")
    assert not need.always

import pytest

from common.workflow import Workflow, WorkflowMismatch, is_link


def node(title, class_type="Any", **inputs):
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def test_patching_a_copy_leaves_the_original_alone():
    """Two jobs patch their own copies of one workflow."""
    original = Workflow({"3": node("Sampler", steps=8)})
    patched = original.copy()

    patched.patch("Sampler", "steps", 4)

    assert patched.node("Sampler")["inputs"]["steps"] == 4
    assert original.node("Sampler")["inputs"]["steps"] == 8


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({}, "0 nodes are titled 'Sampler'"),
        ({"1": node("Sampler"), "2": node("Sampler")}, "2 nodes are titled"),
        ({"1": node("Sampler", cfg=1)}, "has no input 'steps', but: cfg"),
    ],
    ids=["no such title", "ambiguous title", "no such input"],
)
def test_a_patch_that_does_not_fit_is_refused_by_name(nodes, message):
    """A title or input that is missing or double is an error, never a new node."""
    with pytest.raises(WorkflowMismatch, match=message):
        Workflow(nodes).patch("Sampler", "steps", 4)


def test_a_node_without_a_title_goes_by_its_class():
    """ComfyUI shows the class name where no title was given, and so do we."""
    assert Workflow({"1": {"class_type": "KSampler", "inputs": {}}}).id_of("KSampler")


def test_unlinking_drops_what_only_fed_that_input():
    """Without a start image its loader and scaler go; shared and output nodes stay."""
    workflow = Workflow(
        {
            "1": node("Load"),
            "2": node("Scale", image=["1", 0]),
            "3": node("VAE"),
            "4": node("Latent", start_image=["2", 0], vae=["3", 0]),
            "5": node("Save", "SaveVideo", video=["4", 0]),
            "6": node("Look", "PreviewImage", images=["3", 0]),
        }
    )

    workflow.unlink("Latent", "start_image")

    assert set(workflow.nodes) == {"3", "4", "5", "6"}
    assert workflow.node("Latent")["inputs"] == {"vae": ["3", 0]}


def test_a_node_that_others_read_survives_unlinking():
    """What feeds something else as well is kept."""
    workflow = Workflow(
        {
            "1": node("Load"),
            "2": node("Latent", start_image=["1", 0]),
            "3": node("Other", "SaveImage", images=["1", 0], latent=["2", 0]),
        }
    )

    workflow.unlink("Latent", "start_image")

    assert set(workflow.nodes) == {"1", "2", "3"}


def test_splicing_twice_makes_a_chain():
    """Loader, first LoRA, second LoRA, sampler: in the order they were given."""
    workflow = Workflow({"1": node("Loader"), "3": node("Sampler", model=["1", 0])})

    first = workflow.splice("Sampler", "model", "Lora", lora_name="a")
    second = workflow.splice("Sampler", "model", "Lora", lora_name="b")

    assert workflow.nodes[first]["inputs"] == {"lora_name": "a", "model": ["1", 0]}
    assert workflow.nodes[second]["inputs"] == {"lora_name": "b", "model": [first, 0]}
    assert workflow.node("Sampler")["inputs"]["model"] == [second, 0]


def test_a_node_that_is_bypassed_leaves_its_neighbours_linked():
    """Whoever read its output reads what fed it."""
    workflow = Workflow(
        {
            "1": node("Loader"),
            "2": node("Lora", model=["1", 0], lora_name="a"),
            "3": node("Sampler", model=["2", 0], steps=8),
            "4": node("Other", model=["2", 0]),
        }
    )

    workflow.bypass("Lora", "model")

    assert set(workflow.nodes) == {"1", "3", "4"}
    assert workflow.node("Sampler")["inputs"] == {"model": ["1", 0], "steps": 8}
    assert workflow.node("Other")["inputs"]["model"] == ["1", 0]


def test_weights_are_read_from_the_loaders():
    """Links, numbers and texts are no files."""
    workflow = Workflow(
        {
            "1": node("VAE", "VAELoader", vae_name="wan2.2_vae.safetensors"),
            "2": node("Text", "CLIPTextEncode", text="a cat", clip=["1", 0]),
        }
    )

    assert workflow.weights() == {"wan2.2_vae.safetensors": ("VAELoader", "vae_name")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["3", 0], True),
        ([3, 0], False),
        (["3"], False),
        ("3", False),
        (["3", "0"], False),
    ],
    ids=str,
)
def test_only_an_id_and_a_number_make_a_link(value, expected):
    """The rule is ComfyUI's own: anything else is a value."""
    assert is_link(value) is expected

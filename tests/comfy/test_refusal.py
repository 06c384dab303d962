"""ComfyUI's validation errors in our words: every recorded kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.comfy.refusal import rejection
from tests.comfy.replay import recording


def refusals(name):
    """Read the recorded 400 answers, and the 200 that was accepted in part."""
    bodies = [line["body"] for line in recording(name) if line.get("post")]
    return [rejection(body) for body in bodies if body and "number" not in body]


@pytest.mark.parametrize("version", ["", "fork_"], ids=["0.3.64", "fork 0.12.1"])
def test_nodes(version):
    """Each complaint names node, input and limit, alike in both versions."""
    found = [
        (error.kind, error.node_id, error.input, error.message.partition(": ")[2])
        for refused in refusals(version + "s04")
        for error in refused.errors
    ]

    expected = [
        ("value_smaller_than_min", "55", "width", "width 8 is below 32"),
        ("value_bigger_than_max", "3", "steps", "steps 10001 is above 10000"),
        ("required_input_missing", "3", "seed", "seed is missing"),
        ("invalid_input_type", "3", "steps", "steps must be INT"),
        (
            "value_not_in_list",
            "3",
            "sampler_name",
            "sampler_name 'nope' is not among what the engine has",
        ),
        (
            "return_type_mismatch",
            "3",
            "model",
            "model is linked to CLIP, needs MODEL",
        ),
        (
            "exception_during_inner_validation",
            "3",
            "samples",
            "samples is linked to a node or output that does not exist",
        ),
        (
            "custom_validation_failed",
            "56",
            "image",
            "Custom validation failed for node: image - Invalid image file: absent.png",
        ),
    ]
    assert set(expected) <= set(found)
    assert {row[0] for row in found} == {row[0] for row in expected}


@pytest.mark.parametrize("version", ["", "fork_"], ids=["0.3.64", "fork 0.12.1"])
def test_missing_model(version):
    """A weights file that is not in its loader's list is a missing model, by name."""
    found = refusals(version + "s05")

    assert {refused.code for refused in found} == {"missing_model"}
    assert found[0].errors[0].details == "absent.safetensors"
    assert "absent.safetensors" in found[0].hint
    assert "wan2.2" not in str(found[0])  # the folder's other files


@pytest.mark.parametrize("version", ["", "fork_"], ids=["0.3.64", "fork 0.12.1"])
def test_whole_workflow(version):
    """What concerns the workflow as a whole is said, an unknown node by its class."""
    unknown, *others = refusals(version + "s06")
    [error] = unknown.errors

    assert (error.kind, error.node_id, error.class_type) == (
        "missing_node_type",
        "99",
        "NoSuchNodeClass",
    )
    assert unknown.code == "invalid_workflow"
    assert "custom node" in unknown.hint
    kinds = {error.kind for refused in others for error in refused.errors}
    assert {"prompt_no_outputs", "no_prompt"} <= kinds


@pytest.mark.parametrize("name", ["s04", "fork_s04", "s05", "fork_s05", "fork_s06"])
def test_nothing_leaks(name):
    """No traceback and no folder of the server is in what we keep."""
    for refused in refusals(name):
        text = repr(refused.errors) + str(refused)
        assert "/srv" not in text
        assert "main.py" not in text
        assert "Traceback" not in text


@pytest.mark.parametrize("body", [None, [], {}, {"error": "x"}, {"node_errors": [1]}])
def test_unreadable(body):
    """A refusal that cannot be read is a refusal still."""
    assert rejection(body).code == "invalid_workflow"
    assert str(rejection(body)) == "the workflow was refused"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    "error",
                    "node_errors",
                    "errors",
                    "type",
                    "message",
                    "details",
                    "extra_info",
                    "input_config",
                    "received_value",
                    "class_type",
                    "value_not_in_list",
                    "min",
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(json_values)
def test_any_body(body):
    """No body raises, and there is always something to say."""
    refused = rejection(body)

    assert refused.errors
    assert isinstance(str(refused), str)

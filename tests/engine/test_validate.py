"""Graphs are refused in ComfyUI's own words."""

import json
from pathlib import Path

import pytest

from common.engine.validate import choices, validate

DATA = Path(__file__).parents[1] / "data"
RECORDED = Path(__file__).with_name("data")

DEFINITIONS = {
    version: json.loads((DATA / f"object_info_{version}.json").read_text("utf-8"))
    for version in ("0.3.64", "0.12.1")
}
REFUSALS = json.loads((RECORDED / "refusals.json").read_text("utf-8"))

CONFIG = ("input_name", "input_config")

ABSENT = "absent.safetensors"


def image_exists(name):
    return None if name == "in.png" else f"Invalid image file: {name}"


def put(**nodes):
    """Return a change of inputs: put(n55={"width": 8})."""

    def change(graph):
        for node_id, inputs in nodes.items():
            graph[node_id[1:]]["inputs"].update(inputs)

    return change


def unknown_class(node_id, class_type):
    def change(graph):
        graph[node_id] = {"class_type": class_type, "inputs": {}}

    return change


def absent_image(graph):
    graph["56"] = {"class_type": "LoadImage", "inputs": {"image": "absent.png"}}
    graph["55"]["inputs"]["start_image"] = ["56", 0]


#: What was done to the small workflow for each recorded refusal, in their order.
CHANGES = [
    put(n55={"width": 8}),
    put(n3={"steps": 10001}),
    put(n3={"steps": 0}),
    lambda graph: graph["3"]["inputs"].pop("seed"),
    put(n3={"steps": "abc"}),
    put(n3={"sampler_name": "nope"}),
    put(n3={"model": ["38", 0]}),
    put(n3={"model": ["999", 0]}),
    put(n3={"model": ["48", 5]}),
    absent_image,
    put(n3={"seed": -1}),
    put(n3={"seed": 2**64}),
    put(n55={"width": 8}, n3={"steps": 0}),
    put(n57={"fps": 0.0}),
    put(n37={"unet_name": ABSENT}),
    put(n49={"lora_name": ABSENT}),
    put(n38={"clip_name": ABSENT}),
    put(n39={"vae_name": ABSENT}),
    unknown_class("99", "NoSuchNodeClass"),
    unknown_class("58", "VHS_VideoCombine"),
    lambda graph: graph.pop("58"),
    lambda graph: graph["58"].pop("class_type"),
]


def definitions_of(refusal):
    """Return the definitions, with the file lists of the machine that refused."""
    definitions = dict(DEFINITIONS["0.3.64"])
    for node in refusal["body"]["node_errors"].values():
        for error in node["errors"]:
            name, config = (error["extra_info"].get(k) for k in CONFIG)
            if config and name.endswith("_name"):
                known = definitions[node["class_type"]]
                required = known["input"]["required"] | {name: config}
                inputs = {"input": known["input"] | {"required": required}}
                definitions[node["class_type"]] = known | inputs
    return definitions


def plain(body):
    """Return a refusal without tracebacks."""
    if isinstance(body, dict):
        return {k: plain(v) for k, v in body.items() if k != "traceback"}
    return [plain(item) for item in body] if isinstance(body, list) else body


@pytest.mark.parametrize(
    ("change", "refusal"),
    list(zip(CHANGES, REFUSALS, strict=False)),
    ids=[refusal["case"] for refusal in REFUSALS[: len(CHANGES)]],
)
def test_refusals(workflow, change, refusal):
    """Each recorded refusal of ComfyUI 0.3.64 is ours, word for word."""
    graph = workflow(changes={"37": {}})
    change(graph)

    checks = {("LoadImage", "image"): image_exists}

    verdict = validate(graph, definitions_of(refusal), checks)

    ours = {"error": verdict.error, "node_errors": verdict.node_errors}
    assert plain(json.loads(json.dumps(ours))) == plain(refusal["body"])
    assert verdict.outputs == []


@pytest.mark.parametrize("version", DEFINITIONS)
@pytest.mark.parametrize("name", ["fastwan_t2v", "fastwan_t2v_tiled", "wan22_i2v_14b"])
def test_good_graphs(workflow, version, name):
    """The workflows pass under the node definitions of both versions."""
    checks = {("LoadImage", "image"): image_exists}

    verdict = validate(workflow(name), DEFINITIONS[version], checks)

    assert verdict.error is None
    assert verdict.node_errors == {}
    assert len(verdict.outputs) == 1


@pytest.mark.parametrize(
    ("node_id", "name", "given", "taken"),
    [
        ("3", "steps", "5", 5),
        ("3", "steps", 2.7, 2),
        ("3", "cfg", 3, 3.0),
        ("6", "text", None, "None"),
        ("55", "width", 65, 65),
        ("3", "nobody_knows_me", [], []),
    ],
    ids=["numeric string", "float", "int", "null text", "step", "unknown input"],
)
def test_what_passes(workflow, node_id, name, given, taken):
    """Values are converted as ComfyUI does it, and the caller's graph is left alone."""
    graph = workflow(changes={node_id: {name: given}})

    verdict = validate(graph, DEFINITIONS["0.12.1"])

    assert verdict.error is None
    assert verdict.graph[node_id]["inputs"][name] == taken
    assert graph[node_id]["inputs"][name] == given


@pytest.mark.parametrize(
    "text",
    ["12", "[]", '{"1": 5}', '{"1": {"class_type": ["x"]}}'],
    ids=["a number in a node's place", "a list", "a number", "a list as class"],
)
def test_nonsense_is_refused(text):
    """What is no graph at all gets an answer, not an exception."""
    graph = json.loads(text)
    graph = graph if isinstance(graph, dict) else {"1": graph}

    verdict = validate(graph, DEFINITIONS["0.12.1"])

    assert verdict.error["type"] == "invalid_prompt"


@pytest.mark.parametrize("inputs", [[], "text", 5, None], ids=str)
def test_inputs_that_are_no_object(workflow, inputs):
    """A node whose inputs are something else is refused like any broken graph."""
    graph = workflow()
    graph["3"]["inputs"] = inputs

    verdict = validate(graph, DEFINITIONS["0.12.1"])

    assert verdict.outputs == []
    assert verdict.node_errors


def test_a_cycle_is_refused(workflow):
    """A graph that bites its tail is refused instead of being walked for ever."""
    graph = workflow(changes={"49": {"model": ["48", 0]}})

    verdict = validate(graph, DEFINITIONS["0.12.1"])

    assert verdict.outputs == []
    [error] = verdict.node_errors["58"]["errors"]
    assert "cycle" in error["details"]


@pytest.mark.parametrize(
    ("inputs", "kinds"),
    [
        ({"mode": "single_speaker"}, []),
        ({"mode": "two_speakers"}, []),
        ({"mode": "choir"}, ["value_not_in_list"]),
        (
            {"mode": "two_speakers", "mode.mask_1": ["1", 0]},
            ["return_type_mismatch"],
        ),
        ({"mode": "single_speaker", "mode.mask_1": ["1", 0]}, []),
        ({}, []),
    ],
    ids=["one", "two", "unknown", "input of the option", "of another option", "none"],
)
def test_dynamic_combos(inputs, kinds):
    """A dynamic combo offers its keys, and the chosen one brings its own inputs."""
    known = DEFINITIONS["0.12.1"]
    combo = known["WanInfiniteTalkToVideo"]["input"]["required"]["mode"]
    definitions = {
        "Talk": {
            "input": {"required": {"mode": combo}},
            "output": [],
            "output_node": True,
        },
        "Loader": {"input": {}, "output": ["MODEL"], "output_node": False},
    }
    graph = {
        "1": {"class_type": "Loader", "inputs": {}},
        "2": {"class_type": "Talk", "inputs": inputs},
    }

    verdict = validate(graph, definitions)

    errors = verdict.node_errors.get("2", {"errors": []})["errors"]
    assert [error["type"] for error in errors] == kinds


def test_every_combo_shape_has_choices():
    """V1, V3 and dynamic combos all say what they offer."""
    known = DEFINITIONS["0.12.1"]

    v1 = choices(known["KSampler"]["input"]["required"]["scheduler"])
    v3 = choices(known["SaveVideo"]["input"]["required"]["format"])
    dynamic = choices(known["WanInfiniteTalkToVideo"]["input"]["required"]["mode"])

    assert "simple" in v1
    assert v3 == ["auto", "mp4"]
    assert dynamic == ["single_speaker", "two_speakers"]
    assert choices(known["KSampler"]["input"]["required"]["steps"]) is None

"""One contract for all services; a new one is tested by existing."""

import base64
import json
from pathlib import Path

import pytest

from common.api.schema import examples
from common.engine.definitions import Library
from common.engine.settings import EngineSettings
from common.engine.validate import validate
from common.errors import InvalidInput
from common.service import NoSuchService, find, folders, load
from common.workflow import WEIGHT_SUFFIXES
from tests.live import engine, wrapper
from tests.pictures import png
from tests.sounds import sound

ROOT = Path(__file__).parent.parent
RECORDED = sorted((ROOT / "tests" / "data").glob("object_info_*.json"))
FOLDERS = folders(ROOT)

# What a request needs, and the smallest clip that is allowed.
TINY = {
    "prompt": "a red fox in snow",
    "width": 256,
    "height": 256,
    "frames": 5,
    "steps": 2,
}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def service(request):
    """Load each service in turn."""
    return load(request.param)


def fields(service, **given):
    """Return the smallest request of a service."""
    there = service.request.model_fields
    return {k: v for k, v in TINY.items() if k in there} | given


def patches(service):
    """Yield (field, patch, workflow) for each place that a field goes to."""
    for variant, workflow in service.workflows.items():
        for name, patch in service.request.patches():
            if variant is None or name not in variant.without:
                yield name, patch, workflow


def nodes(service):
    """Yield each node of each workflow."""
    for workflow in service.workflows.values():
        yield from workflow.nodes.values()


def media(service, files):
    """Return the file fields that a request fills: "needed", "first" or "all"."""
    names = list(service.request.media_fields())
    fields_ = service.request.model_fields
    needed = [name for name in names if fields_[name].is_required()]
    return {"needed": needed, "first": {*needed, *names[:1]}, "all": names}[files]


def test_there_are_services():
    """The contract below is not vacuous."""
    assert FOLDERS


def test_a_service_goes_by_its_folder(service):
    """Also one that serves its neighbour's definition."""
    assert service.name in {folder.name for folder in FOLDERS}
    assert load(find(service.name)).name == service.name


def test_the_packed_service_is_its_neighbour():
    """It has nothing of its own but its name, so the two cannot differ."""
    packed = load(ROOT / "fastwan2.2-5b-packed")
    neighbour = load(ROOT / "fastwan2.2-5b-network-storage")

    assert packed.name == "fastwan2.2-5b-packed"
    assert packed.folder == neighbour.folder
    assert packed.request.model_json_schema() == neighbour.request.model_json_schema()


def test_every_patch_lands(service):
    """Each field reaches a node input that the exported workflow really has."""
    for _, patch, workflow in patches(service):
        assert patch.input in workflow.inputs(patch.title, patch.input)


def test_defaults_agree_with_the_workflow(service):
    """Our default is the value the author exported, so neither can drift alone."""
    for name, patch, workflow in patches(service):
        default = service.request.model_fields[name].get_default()
        if isinstance(default, int | float | str):
            exported = workflow.inputs(patch.title, patch.input)[patch.input]
            assert exported == default, name


def test_titles_are_unique_and_given(service):
    """A person who opens the workflow finds each node by what it does."""
    for workflow in service.workflows.values():
        titles = [n.get("_meta", {}).get("title") for n in workflow.nodes.values()]

        assert None not in titles
        assert len(set(titles)) == len(titles)


def test_unknown_fields_are_refused(service):
    """A typo in a field's name is an error, not a setting that is ignored."""
    given = dict.fromkeys(media(service, "needed"), "x.png")
    with pytest.raises(InvalidInput, match="stpes"):
        service.request.accept(fields(service, **given, stpes=4))


def test_every_field_explains_itself(service):
    """Type, description and form hints are in the schema, and nowhere else."""
    properties = service.request.model_json_schema()["properties"]
    for name, schema in properties.items():
        inner = [schema, *schema.get("anyOf", [])]
        assert any("description" in one for one in inner), name
        hints = [one["x-ui"] for one in inner if "x-ui" in one]
        if any(one.get("readOnly") for one in inner):
            assert not hints, name  # the service fills it in; no form asks for it
            continue
        assert hints, name
        assert {"widget", "group"} <= set(hints[0]), name


def test_every_example_is_a_request(service):
    """What the document proposes is accepted, with a prompt that suits the service."""
    shown = examples(service.request)
    own = service.request.model_fields["prompt"].examples

    assert shown
    for example in shown.values():
        request = service.request.accept(example["value"])
        assert request.prompt in own


def test_only_safetensors_are_loaded(service):
    """No pickled weights, ever."""
    for node in nodes(service):
        for name, value in node["inputs"].items():
            if name.endswith("_name") and isinstance(value, str) and "." in value:
                assert value.endswith(WEIGHT_SUFFIXES), value


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda path: path.stem)
@pytest.mark.parametrize("files", ["needed", "first", "all"])
def test_the_workflows_suit_the_real_comfyui(service, recorded, files):
    """Classes, inputs, types and ranges, as real versions describe them."""
    if not service.comfyui:
        pytest.skip("the service needs no ComfyUI")
    given = dict.fromkeys(media(service, files), "x.png")
    request = service.request.accept(fields(service, **given))
    if release(recorded.stem.rpartition("_")[2]) < release(service.min_comfyui):
        pytest.skip(f"the service needs ComfyUI {service.min_comfyui}")
    definitions = json.loads(recorded.read_text(encoding="utf-8"))

    suits(service, request, definitions)


@pytest.mark.parametrize("files", ["needed", "first", "all"])
def test_the_workflows_suit_our_own_engine(service, files, tmp_path):
    """What the embedded engine says of its nodes, also those that are ours alone."""
    (tmp_path / "input").mkdir()
    given = dict.fromkeys(media(service, files), "x.png")
    request = service.request.accept(fields(service, **given))

    suits(service, request, Library(EngineSettings(data=tmp_path)).definitions())


def suits(service, request, definitions):
    """Check a request's workflow against the definitions of nodes."""
    patched = service.apply(request)
    verdict = validate(patched.nodes, definitions)

    # Which files there are is a matter of the machine that was recorded.
    problems = [
        (node, problem)
        for node, found in verdict.node_errors.items()
        for problem in found["errors"]
        if not about_a_file(problem)
    ]
    assert not problems
    unknown = verdict.error and verdict.error["type"] == "invalid_prompt"
    assert not unknown, verdict.error
    output = patched.node(service.output)
    assert definitions[output["class_type"]]["output_node"]


def release(version):
    """Return a version as numbers, to be compared."""
    return tuple(map(int, version.split(".")))


def about_a_file(problem):
    """Tell whether a problem is that a file is not on the recorded machine."""
    value = problem["extra_info"].get("received_value")
    return isinstance(value, str) and value.endswith((*WEIGHT_SUFFIXES, ".png"))


def files_of(service):
    """Return the files that a request must have, as they travel in JSON."""
    made = {"image": png(), "audio": sound("wav", 0.2)}
    kinds = service.request.media_fields()
    return {
        name: base64.b64encode(made[kinds[name].kind]).decode()
        for name in media(service, "needed")
    }


async def test_a_request_becomes_an_output(service, tmp_path):
    """From POST to a downloaded file, through the public surface only."""
    async with (
        engine(tmp_path / "engine") as engine_url,
        wrapper(tmp_path / "data", engine_url, service=service) as live,
    ):
        sent = fields(service, **files_of(service))
        status, job = await live.post("/generate", json=sent)
        assert status == 202, job
        done = await live.finished(job["id"])
        async with live.http.get(live.url + done["outputs"][0]["url"]) as answer:
            size = len(await answer.read())

    assert done["status"] == "succeeded", done["error"]
    assert size == done["outputs"][0]["size_bytes"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing-such", "is not a service"), ("", "fits several|is not a service|^''")],
    ids=["unknown", "empty"],
)
def test_an_unknown_service_is_refused_with_the_names_there_are(name, message):
    """A prefix must be unique."""
    if name == "" and len(FOLDERS) == 1:
        assert find(name) == FOLDERS[0]
        return
    with pytest.raises(NoSuchService, match=message):
        find(name)


def test_a_unique_prefix_names_a_service():
    """People do not type whole folder names."""
    assert find(FOLDERS[0].name) == FOLDERS[0]
    assert find("fastwan2.2-5b-network").name == "fastwan2.2-5b-network-storage"

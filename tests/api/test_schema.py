"""GET /openapi.json: what clients and forms are made from."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, STDOUT

import jsonschema_rs
import pytest

from common.fields import Lora
from common.request import Request
from tests.live import both, fastwan

WIDGETS = {"textarea", "image", "slider", "number", "seed", "select", "loras"}
GROUPS = {"prompt", "image", "size", "length", "sampling", "model", "queue"}


@pytest.fixture
async def document(live):
    """Fetch the document."""
    return (await live.get("/openapi.json"))[1]


def references(node):
    """Yield every $ref in a document."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def operations(document):
    """Yield (method and path, operation)."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def resolved(document, schema):
    """Return a schema with the document's components at hand."""
    return {**schema, "components": document["components"]}


async def test_every_reference_leads_somewhere(document):
    """In the document itself."""
    found = set(references(document))

    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


async def test_every_schema_is_one(document):
    """OpenAPI 3.1 schemas are JSON Schema 2020-12."""
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.validator_for(resolved(document, schema))
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names))


async def test_every_call_is_there(document):
    """Each with what it answers, and that it may refuse."""
    calls = dict(operations(document))

    assert set(calls) >= {
        "POST /generate",
        "GET /jobs",
        "GET /jobs/{job_id}",
        "GET /jobs/{job_id}/events",
        "GET /jobs/{job_id}/preview",
        "POST /jobs/{job_id}/cancel",
        "POST /jobs/{job_id}/retry",
        "DELETE /jobs/{job_id}",
        "GET /jobs/{job_id}/outputs/{name}",
        "POST /uploads",
        "GET /",
        "GET /health",
        "GET /ready",
        "GET /system",
        "GET /metrics",
        "GET /status/{job_id}",
        "GET /download/{job_id}",
    }
    for name, call in calls.items():
        if call["tags"] != ["service"]:
            refusal = call["responses"]["4XX"]["content"]["application/problem+json"]
            assert refusal["schema"]["$ref"].endswith("/Problem"), name


async def test_every_call_explains_itself(document):
    """So does each header and each part of a query."""
    for name, call in operations(document):
        assert call.get("description"), name
        for one in call.get("parameters", ()):
            if one["in"] != "path":
                assert one.get("description"), f"{name}: {one['name']}"


async def test_the_body_says_what_a_form_needs(document):
    """A widget, a group, a description, and what is legal, of each field."""
    schema = document["components"]["schemas"]["Generate"]
    assert set(schema["properties"]) == set(fastwan().request.model_fields)
    assert schema["required"] == ["prompt"]
    for name, field in schema["properties"].items():
        ui = field["x-ui"]
        kinds = [field, *field.get("anyOf", ())]
        assert ui["widget"] in WIDGETS, name
        assert ui["group"] in GROUPS, name
        assert field["description"], name
        if ui["widget"] in ("slider", "number"):
            top = [k["maximum"] for k in kinds if "maximum" in k]
            low = [k.get("minimum", k.get("exclusiveMinimum")) for k in kinds]
            assert top, name
            assert any(value is not None for value in low), name
        if ui["group"] in ("size", "length"):
            assert ui["unit"], name
        if ui["widget"] == "select":
            assert any("enum" in k or "maximum" in k for k in kinds), name


async def test_the_examples_are_taken(live, document):
    """Each example is a request that the service accepts, as JSON and by schema."""
    content = document["paths"]["/generate"]["post"]["requestBody"]["content"]
    schema = resolved(document, content["application/json"]["schema"])
    validator = jsonschema_rs.validator_for(schema)
    examples = content["application/json"]["examples"]

    assert len(examples) >= 2
    for example in examples.values():
        assert validator.is_valid(example["value"])
        request = fastwan().request.accept(example["value"])
        assert isinstance(request, Request)


async def test_files_are_parts_of_a_form(document):
    """The multipart body has the same fields."""
    content = document["paths"]["/generate"]["post"]["requestBody"]["content"]
    parts = content["multipart/form-data"]["schema"]["properties"]

    assert parts["image"] == {"type": "string", "format": "binary"}
    assert set(parts) == set(fastwan().request.model_fields)
    assert Lora.__name__ in document["components"]["schemas"]


async def test_what_is_answered_is_what_is_documented(live, document):
    """A job, a list, an upload-free refusal: each fits its schema."""
    done = await live.finished((await live.job())["id"])
    listed = (await live.get("/jobs"))[1]
    refused = (await live.submit(frames=6))[1]
    for body, name in ((done, "JobView"), (listed, "JobList"), (refused, "Problem")):
        schema = resolved(document, {"$ref": f"#/components/schemas/{name}"})
        jsonschema_rs.validator_for(schema).validate(body)
    assert json.dumps(document)


@pytest.mark.slow
async def test_the_document_is_kept_to(tmp_path):
    """Schemathesis makes requests from it, good and bad, and finds no answer wrong."""
    async with both(tmp_path, queue_limit=10_000, limits={"zombie_s": 600}) as live:
        # Each accepted request would be a clip of full size: none is made.
        await live.fault(zombie=True)
        # What the schema cannot say, such as 4n + 1, is refused all the same.
        command = (
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            *(f"{live.url}/openapi.json", "--seed", "1", "--max-examples", "10"),
            *("--exclude-checks", "positive_data_acceptance", "--no-color"),
            *("--exclude-path-regex", "/events$"),
        )
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, stdout=PIPE, stderr=STDOUT
        )
        async with asyncio.timeout(100):
            said = (await process.communicate())[0].decode()

    assert process.returncode == 0, said[-6000:]

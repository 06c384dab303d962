"""What RunPod's Hub reads of each service, against the schema of its documents."""

import json

import jsonschema_rs
import pytest

from common.inputs.media import KINDS, decode
from common.inputs.source import Inline, parse
from common.runpod.settings import RunPod
from common.service import folders, load
from common.settings import Settings

# The card a service is tested on, and the pools of those that it may run on.
# Source: docs.runpod.io/references/gpu-types.
POOLS = {
    "AMPERE_16": 16,
    "AMPERE_24": 24,
    "ADA_24": 24,
    "AMPERE_48": 48,
    "ADA_48_PRO": 48,
    "AMPERE_80": 80,
    "ADA_80_PRO": 80,
    "HOPPER_141": 141,
}
CARDS = {"NVIDIA GeForce RTX 4090": 24, "NVIDIA L40S": 48}

TEXT = {"type": "string", "minLength": 1}
CUDA = {
    "type": "array",
    "minItems": 1,
    "items": {"enum": ["12.8", "12.9", "13.0"]},  # the images have CUDA 12.8
}
INPUT = {
    "type": "object",
    "required": ["name", "type"],
    "additionalProperties": False,
    "properties": {
        "name": TEXT,
        "type": {"enum": ["string", "number", "boolean", "huggingface"]},
        "description": TEXT,
        "options": {
            "type": "array",
            "items": {"type": "object", "required": ["label", "value"]},
        },
        "min": {"type": "number"},
        "max": {"type": "number"},
        "default": {},
        "required": {"type": "boolean"},
        "advanced": {"type": "boolean"},
        "trueValue": TEXT,
        "falseValue": TEXT,
    },
}
ENV = {
    "type": "object",
    "required": ["key"],
    "additionalProperties": False,
    "properties": {"key": TEXT, "value": {"type": "string"}, "input": INPUT},
    "oneOf": [{"required": ["value"]}, {"required": ["input"]}],
}
HUB = {
    "type": "object",
    "required": ["title", "description", "type", "category", "config"],
    "additionalProperties": False,
    "properties": {
        "title": TEXT,
        "description": TEXT,
        "type": {"const": "serverless"},
        "category": {"enum": ["audio", "embedding", "language", "video", "image"]},
        "iconUrl": {"type": "string", "pattern": "^https://"},
        "config": {
            "type": "object",
            "required": ["runsOn", "containerDiskInGb", "gpuCount", "gpuIds"],
            "additionalProperties": False,
            "properties": {
                "runsOn": {"const": "GPU"},
                "endpointType": {"const": "LB"},
                "containerDiskInGb": {"type": "integer", "minimum": 5},
                "gpuCount": {"const": 1},
                "gpuIds": TEXT,
                "allowedCudaVersions": CUDA,
                "env": {"type": "array", "items": ENV},
                "presets": {"type": "array"},
            },
        },
    },
}
TESTS = {
    "type": "object",
    "required": ["tests", "config"],
    "additionalProperties": False,
    "properties": {
        "tests": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "input"],
                "additionalProperties": False,
                "properties": {
                    "name": TEXT,
                    "input": {"type": "object"},
                    "timeout": {"type": "integer", "minimum": 1000},
                },
            },
        },
        "config": {
            "type": "object",
            "required": ["gpuTypeId", "gpuCount"],
            "additionalProperties": False,
            "properties": {
                "gpuTypeId": {"enum": list(CARDS)},
                "gpuCount": {"const": 1},
                "env": {"type": "array"},
                "allowedCudaVersions": CUDA,
            },
        },
    },
}


@pytest.fixture(params=folders(), ids=lambda folder: folder.name)
def folder(request):
    """Each service's folder in turn."""
    return request.param


def read(folder, name):
    """Return a hub file."""
    return json.loads((folder / ".runpod" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "schema"), [("hub", HUB), ("tests", TESTS)])
def test_a_hub_file_is_what_the_hub_reads(folder, name, schema):
    """By the fields, types and words of RunPod's publishing guide."""
    jsonschema_rs.validate(schema, read(folder, f"{name}.json"))


def test_the_cards_have_the_memory(folder):
    """Each pool, and the card of the tests, holds the largest single stage."""
    service = load(folder)
    pools = read(folder, "hub.json")["config"]["gpuIds"].split(",")
    card = CARDS[read(folder, "tests.json")["config"]["gpuTypeId"]]

    assert service.memory.model_gb < min(card, *(POOLS[pool] for pool in pools))


def test_the_hub_says_what_the_service_is(folder):
    """Its title, and what comes out of it."""
    hub, service = read(folder, "hub.json"), load(folder)

    assert hub["title"] == service.title
    assert hub["category"] == service.kind


def test_every_variable_is_read_by_somebody(folder):
    """No setting that nothing looks at: by us, or by RunPod's SDK."""
    ours = {"RUNPOD_INIT_TIMEOUT", "LOG_LEVEL"}
    for one in read(folder, "hub.json")["config"]["env"]:
        key = one["key"]
        if key.startswith("BUCKET_"):
            assert key.lower() in RunPod.model_fields
        elif key not in ours:
            assert key.startswith("WAN_")
            assert key.removeprefix("WAN_").lower() in Settings.model_fields


def test_the_hubs_tests_are_good_requests(folder):
    """Each is accepted as it stands, with files that decode; none needs the network."""
    service = load(folder)
    for test in read(folder, "tests.json")["tests"]:
        request = service.request.accept(test["input"])
        for name, media in request.media_fields().items():
            if (value := test["input"].get(name)) is None:
                continue
            source = parse(value, field=name, types=KINDS[media.kind].types)
            assert isinstance(source, Inline)
            assert decode(source.data, name, {media.kind}).kind == media.kind

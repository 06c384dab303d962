"""
What is deployed for a service, from its own hub files. Pure.

So that the Hub, the helper on the command line and the tests cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUB = ".runpod/hub.json"
TESTS = ".runpod/tests.json"


@dataclass(frozen=True)
class Wanted:
    """What a person chooses; None = as the hub files say."""

    image: str
    name: str
    gpus: Sequence[str] = ()  #: by RunPod's ids, the most wanted first
    volume: str | None = None  #: id of a network volume
    env: Mapping[str, str] | None = None
    workers_min: int = 0
    workers_max: int = 3
    idle_s: int = 5
    limit_s: int = 1800  #: for one job


def template(service: str, folder: Path, wanted: Wanted) -> dict[str, Any]:
    """Return the body of POST /templates. Source: RunPod's openapi.json."""
    hub = _read(folder / HUB)["config"]
    static = {one["key"]: one["value"] for one in hub["env"] if "value" in one}
    return {
        "name": wanted.name,
        "imageName": wanted.image,
        "isServerless": True,
        "containerDiskInGb": hub["containerDiskInGb"],
        "dockerStartCmd": ["wan", "container", service],
        "env": static | dict(wanted.env or {}),
        "ports": [],
        "volumeInGb": 0,  # a pod's own; a worker has its disk and the network volume
    }


def endpoint(template_id: str, folder: Path, wanted: Wanted) -> dict[str, Any]:
    """Return the body of POST /endpoints. Source: RunPod's openapi.json."""
    hub, tests = _read(folder / HUB)["config"], _read(folder / TESTS)["config"]
    body = {
        "name": wanted.name,
        "templateId": template_id,
        "computeType": "GPU",
        "gpuTypeIds": list(wanted.gpus) or [tests["gpuTypeId"]],
        "gpuCount": hub["gpuCount"],
        "allowedCudaVersions": hub["allowedCudaVersions"],
        "workersMin": wanted.workers_min,
        "workersMax": wanted.workers_max,
        "idleTimeout": wanted.idle_s,
        "executionTimeoutMs": wanted.limit_s * 1000,
        "scalerType": "QUEUE_DELAY",
        "scalerValue": 4,
        "flashboot": True,
    }
    return body | ({"networkVolumeId": wanted.volume} if wanted.volume else {})


def _read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found

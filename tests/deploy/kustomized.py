"""
What `kubectl kustomize` makes of deploy/kubernetes, for machines without kubectl.

It knows the few features that the folders use, and refuses any other; where kubectl is
installed, a test compares the two.
"""

import copy
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"

KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "nameSuffix",
    "resources",
    "labels",
    "images",
    "patches",
    "configMapGenerator",
}
# Where a label that selects belongs, by kind. Source: kustomize's commonlabels.go.
SELECTORS = {
    "Service": ["spec/selector"],
    "StatefulSet": [
        "spec/selector/matchLabels",
        "spec/template/metadata/labels",
        "spec/volumeClaimTemplates/0/metadata/labels",
    ],
    "PodDisruptionBudget": ["spec/selector/matchLabels"],
    "NetworkPolicy": ["spec/podSelector/matchLabels"],
}
# Made only where it is there; elsewhere absent is made.
ONLY_WHERE_IT_IS = {"PodDisruptionBudget", "NetworkPolicy"}


def documents(path):
    """Return the objects of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def build(folder):
    """Return the objects that a folder stands for."""
    (asked,) = documents(folder / "kustomization.yaml")
    assert asked.keys() <= KNOWN, asked.keys() - KNOWN
    found = []
    for name in asked["resources"]:
        path = (folder / name).resolve()
        found += build(path) if path.is_dir() else documents(path)
    found = copy.deepcopy(found)
    for one in asked.get("configMapGenerator", ()):
        data = {name: (folder / name).read_text() for name in one["files"]}
        made = {"apiVersion": "v1", "kind": "ConfigMap", "data": data}
        found.append({**made, "metadata": {"name": one["name"]}})
    for patch in asked.get("patches", ()):
        assert patch.keys() == {"target", "patch"}
        targets = [one for one in found if one["kind"] == patch["target"]["kind"]]
        assert targets
        for target in targets:
            for change in yaml.safe_load(patch["patch"]):
                _change(target, **change)
    for one in found:
        _name(one, asked)
        for labels in asked.get("labels", ()):
            assert labels["includeSelectors"] is True
            _label(one, labels["pairs"])
        for image in asked.get("images", ()):
            for container in _containers(one):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return found


def _change(target, op, path, value=None):
    """Apply one operation of RFC 6902."""
    *way, last = path.removeprefix("/").split("/")
    place = target
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    if isinstance(place, list):
        last = len(place) if last == "-" else int(last)
    match op:
        case "add" if isinstance(place, list):
            place.insert(last, value)
        case "add":
            place[last] = value
        case "replace":
            place[last]  # must be there
            place[last] = value
        case "remove":
            del place[last]
        case _:
            raise AssertionError(op)


def _name(one, asked):
    suffix, namespace = asked.get("nameSuffix", ""), asked.get("namespace")
    if one["kind"] == "Namespace":
        return
    one["metadata"]["name"] += suffix
    if one["kind"] == "StatefulSet":
        one["spec"]["serviceName"] += suffix
    if namespace is not None:
        one["metadata"]["namespace"] = namespace


def _label(one, pairs):
    one["metadata"].setdefault("labels", {}).update(pairs)
    for path in SELECTORS.get(one["kind"], ()):
        place = one
        for step in path.split("/"):
            if isinstance(place, list):
                place = place[int(step)]
                continue
            if step not in place and one["kind"] in ONLY_WHERE_IT_IS:
                break
            place = place.setdefault(step, {})
        else:
            place.update(pairs)


def _containers(one):
    spec = one.get("spec", {}).get("template", {}).get("spec", {})
    return spec.get("containers", [])


def without_hashes(text):
    """Return kubectl's text with the hash cut off generated names."""
    return re.sub(r"\b(wan-gateway)-[a-z0-9]{10}\b", r"\1", text)

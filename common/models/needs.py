"""Which weights a service loads, read from the loader nodes of its workflow files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.request import Variant
from common.service import Service
from common.workflow import Workflow

#: Below ComfyUI's `models`: where each loader looks. Source: ComfyUI's nodes.py and
#: comfy_extras, by the folder names that they ask folder_paths for.
FOLDERS: Mapping[str, str] = {
    "UNETLoader": "diffusion_models",
    "CLIPLoader": "text_encoders",
    "VAELoader": "vae",
    "LoraLoaderModelOnly": "loras",
    "CLIPVisionLoader": "clip_vision",
    "AudioEncoderLoader": "audio_encoders",
    "ModelPatchLoader": "model_patches",
}

#: Nodes of our own engine that load a whole model, whose files no input names.
LOADS: Mapping[str, str] = {"QwenImageEdit": "qwen-image-edit@2509"}


@dataclass(frozen=True)
class Need:
    """One file that some requests of a service load."""

    folder: str  #: below `models`, such as "vae"
    name: str
    class_type: str  #: the node that loads it
    input: str  #: of that node; its choices are the files that are there
    variants: tuple[Variant | None, ...]  #: workflows that name it; None = the main one
    always: bool  #: False: only some requests of those variants load it


def needs(service: Service) -> tuple[Need, ...]:
    """
    Return what the workflows of a service load, in their order, each file once.

    A loader that feeds nothing in the exported workflow is one that some requests link
    in, such as a second speaker's.
    """
    found: dict[tuple[str, str], Need] = {}
    for variant, workflow in service.workflows.items():
        for need in of_workflow(workflow, variant):
            key = need.folder, need.name
            before = found.get(key)
            found[key] = need if before is None else _both(before, need)
    return tuple(found.values())


def models(service: Service) -> tuple[str, ...]:
    """Return the ids of the models that nodes of a service's workflows load whole."""
    every = (whole_models(workflow) for workflow in service.workflows.values())
    return tuple(dict.fromkeys(id_ for ids in every for id_ in ids))


def whole_models(workflow: Workflow) -> tuple[str, ...]:
    """Return the ids of the models that nodes of one workflow load whole."""
    classes = (node["class_type"] for node in workflow.nodes.values())
    return tuple(dict.fromkeys(LOADS[one] for one in classes if one in LOADS))


def of_workflow(workflow: Workflow, variant: Variant | None = None) -> list[Need]:
    """Return what one workflow loads; also one that was patched for a request."""
    read = {source for source, _ in workflow.links()}
    always = {
        name
        for id_ in read
        for name in workflow.nodes[id_]["inputs"].values()
        if isinstance(name, str)
    }
    return [
        Need(
            folder_of(class_type), name, class_type, input_, (variant,), name in always
        )
        for name, (class_type, input_) in workflow.weights().items()
    ]


def folder_of(class_type: str) -> str:
    """Return the folder that a loader reads, below `models`; "" where none is known."""
    return FOLDERS.get(class_type, "")


def _both(one: Need, other: Need) -> Need:
    return Need(
        one.folder,
        one.name,
        one.class_type,
        one.input,
        one.variants + other.variants,
        one.always and other.always,
    )

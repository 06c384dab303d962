from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from common.clip import Clip
from common.errors import InvalidInput
from common.fields import Fps, Frames, Height, Image, Seconds, Seed, Width
from common.job import Expected
from common.request import MediaInput, Patch, Variant
from common.workflow import Workflow, WorkflowMismatch


class Small(Clip):
    """A clip of at most a million pixels and 81 frames of them."""

    max_area = 1_000_000
    max_volume = 40_000_000

    prompt: Annotated[str, Field(min_length=1), Patch("Text", "text")]
    image: Annotated[Image | None, Patch("First", "image")] = None
    width: Annotated[Width, Patch("Latent", "width")] = 512
    height: Annotated[Height, Patch("Latent", "height")] = 512
    frames: Annotated[Frames, Patch("Latent", "length")] = 81
    seconds: Seconds | None = None
    fps: Fps = 16
    seed: Annotated[Seed | None, Patch("High", "seed"), Patch("Low", "seed")] = None


def node(title, **inputs):
    return {"class_type": "Any", "inputs": inputs, "_meta": {"title": title}}


WORKFLOW = Workflow(
    {
        "1": node("Text", text=""),
        "2": node("First", image="x.png"),
        "3": node("Latent", width=1, height=1, length=1, start=["2", 0]),
        "4": node("High", seed=0),
        "5": node("Low", seed=0),
    }
)


def test_each_field_lands_where_its_patch_says():
    """One field may go to two nodes; absent ones leave the workflow's own value."""
    request = Small.accept({"prompt": "a cat", "seed": 7, "width": 640})
    patched = request.apply(WORKFLOW)

    assert patched.node("Text")["inputs"]["text"] == "a cat"
    assert patched.node("Latent")["inputs"]["width"] == 640
    assert patched.node("High")["inputs"]["seed"] == 7
    assert patched.node("Low")["inputs"]["seed"] == 7
    assert patched.node("First")["inputs"]["image"] == "x.png"
    assert WORKFLOW.node("Text")["inputs"]["text"] == ""


def test_the_files_of_a_request_know_where_their_names_go():
    """The runner uploads each and patches what ComfyUI called it."""
    request = Small.accept({"prompt": "a cat", "image": "u1"})

    assert request.media() == (MediaInput("image", "u1", "First", "image"),)
    assert Small.accept({"prompt": "a cat"}).media() == ()


def test_a_seed_is_drawn_and_kept():
    """The stored request repeats the very same video."""
    request = Small.accept({"prompt": "a cat", "seed": None})

    assert request.seed is not None
    assert Small.accept(request.model_dump()).seed == request.seed


@pytest.mark.parametrize(
    ("given", "frames"),
    [
        ({}, 81),
        ({"frames": 5}, 5),
        ({"seconds": 2}, 33),
        ({"seconds": 2.0, "fps": 8}, 17),
        ({"seconds": None, "frames": 9}, 9),
    ],
    ids=["default", "frames", "seconds", "seconds at another pace", "null seconds"],
)
def test_a_length_comes_in_frames_or_seconds(given, frames):
    """Seconds become the nearest 4n + 1 at the clip's own pace."""
    request = Small.accept({"prompt": "a cat", **given})

    assert (request.frames, request.seconds) == (frames, None)
    assert Small.expected(request.model_dump()) == Expected(
        "video", 512, 512, frames, request.fps
    )


@pytest.mark.parametrize(
    ("given", "field", "hint"),
    [
        ({"stpes": 4}, "stpes", "GET /openapi.json lists the fields"),
        ({"prompt": ""}, "prompt", None),
        ({"prompt": 5}, "prompt", None),
        ({"width": 513}, "width", None),
        ({"width": 64}, "width", None),
        ({"width": "512"}, "width", None),
        ({"width": True}, "width", None),
        ({"frames": 80}, "frames", "use 81"),
        ({"frames": None}, "frames", None),
        ({"seed": 2**53}, "seed", None),
        ({"seed": -1}, "seed", None),
        ({"frames": 9, "seconds": 1.0}, "seconds", "leave one"),
        ({"seconds": 0.0}, "seconds", None),
        ({"seconds": 30.0}, "seconds", "use 0.31 to 15.06 s at 16 fps"),
        ({"seconds": float("nan")}, "seconds", None),
        (
            {"width": 1280, "height": 1280},
            "height",
            "at width 1280 use height 768 or less",
        ),
        (
            {"width": 960, "height": 960},
            "frames",
            "at this size use at most 41 frames (2.6 s)",
        ),
        (
            {"width": 960, "height": 960, "seconds": 5},
            "seconds",
            "at this size use at most 41 frames (2.6 s)",
        ),
        ({"priority": 6}, "priority", None),
    ],
    ids=str,
)
def test_a_bad_field_is_named_with_its_cure(given, field, hint):
    """The refusal speaks of the caller's own field, and of no other."""
    with pytest.raises(InvalidInput) as caught:
        Small.accept({"prompt": "a cat", **given})

    assert [error.field for error in caught.value.errors] == [field]
    assert caught.value.errors[0].hint == hint
    assert caught.value.detail.startswith(f"{field}: ")


def test_the_budget_is_kept_to_the_last_frame():
    """The most frames that a hint names are accepted."""
    request = {"prompt": "a cat", "width": 960, "height": 960, "frames": 41}

    assert Small.accept(request).frames == 41


def test_every_bad_field_is_named_at_once():
    """A caller mends all in one go, and a flood of unknown fields is cut."""
    with pytest.raises(InvalidInput) as caught:
        Small.accept({"width": 1, **{f"x{n}": 1 for n in range(100)}})

    assert len(caught.value.errors) == 20
    assert "more)" in caught.value.detail


def test_values_are_never_echoed():
    """A refusal holds no part of what was sent."""
    with pytest.raises(InvalidInput) as caught:
        Small.accept({"prompt": ["canary"], "width": "canary"})

    assert "canary" not in caught.value.detail + str(caught.value.errors)


@pytest.mark.parametrize("gone", ["Text", "Low"], ids=str)
def test_a_patch_without_a_node_fails_at_start_by_name(gone):
    """A workflow that lost a title is refused before the first job."""
    nodes = {k: n for k, n in WORKFLOW.nodes.items() if n["_meta"]["title"] != gone}

    with pytest.raises(WorkflowMismatch, match=gone):
        Small.check(Workflow(nodes))


class Aliased(Small):
    """A clip whose picture has a second name."""

    aliases: ClassVar = {"image_url": "image"}
    variants: ClassVar = (Variant("other.json", "text", without=("image",)),)


@pytest.mark.parametrize(
    ("given", "image"),
    [
        ({"image_url": "u1"}, "u1"),
        ({"image": "u1", "image_url": None}, "u1"),
        ({"image": None, "image_url": "u1"}, "u1"),
        ({"image_url": None}, None),
    ],
    ids=str,
)
def test_a_field_is_taken_under_its_other_name(given, image):
    """Null is as good as absent."""
    assert Aliased.accept({"prompt": "a cat", **given}).image == image


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"image": "u1", "image_url": "u1"}, "image_url"),
        ({"image_url": 5}, "image_url"),
        ({"image": 5}, "image"),
        ({"image": "u1", "image_ulr": "u1"}, "image_ulr"),
    ],
    ids=str,
)
def test_a_refusal_uses_the_name_that_was_sent(given, field):
    """In the list of errors and in the sentence."""
    with pytest.raises(InvalidInput) as caught:
        Aliased.accept({"prompt": "a cat", **given})

    assert [error.field for error in caught.value.errors] == [field]
    assert caught.value.detail.startswith(f"{field}: ")


def test_a_variant_lacks_only_what_it_says():
    """Its workflow needs no node for those fields, and one for each other field."""
    [variant] = Aliased.variants
    nodes = {k: n for k, n in WORKFLOW.nodes.items() if n["_meta"]["title"] != "First"}

    Aliased.check(Workflow(nodes), variant)
    with pytest.raises(WorkflowMismatch, match="First"):
        Aliased.check(Workflow(nodes))
    with pytest.raises(WorkflowMismatch, match="Low"):
        Aliased.check(Workflow({k: n for k, n in nodes.items() if k != "5"}), variant)

"""Editors: the embedded one is deterministic and works on the caller's picture."""

import numpy as np
import pytest
from PIL import Image

from common.engine.editors import Edit, EditorMissing, editor, weights
from common.engine.editors.embedded import EmbeddedEditor


def picture(width=96, height=64):
    """Return a picture with a gradient."""
    x = np.linspace(0, 255, width, dtype=np.uint8)
    pixels = np.stack([np.tile(x, (height, 1))] * 3, axis=2)
    return Image.fromarray(pixels)


def task(**changes):
    """Return an edit."""
    facts = {
        "images": (picture(),),
        "prompt": "winter",
        "negative_prompt": "",
        "steps": 2,
        "cfg": 1.0,
        "seed": 7,
        "width": 256,
        "height": 256,
    }
    return Edit(**{**facts, **changes})


def pixels(edit):
    """Return the pixels of each picture of an edit."""
    made = EmbeddedEditor().edit(edit, lambda done, of, jpeg: None)
    return [np.asarray(one) for one in made]


def test_equal_requests_make_equal_pictures():
    """To the pixel."""
    assert np.array_equal(pixels(task())[0], pixels(task())[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "summer"},
        {"seed": 8},
        {"negative_prompt": "snow"},
        {"cfg": 2.0},
        {"steps": 3},
        {"images": (picture(), picture(64, 64))},
        {"images": (picture().rotate(180),)},
    ],
    ids=["prompt", "seed", "negative", "cfg", "steps", "second picture", "picture"],
)
def test_each_setting_changes_the_picture(changes):
    """Nothing that the caller gives is ignored."""
    assert not np.array_equal(pixels(task())[0], pixels(task(**changes))[0])


def test_a_further_picture_has_the_next_seed():
    """So it can be made again by itself."""
    both = pixels(task(count=2))

    assert len(both) == 2
    assert np.array_equal(both[1], pixels(task(seed=8))[0])


def test_the_caller_s_picture_is_still_there():
    """It is edited, not replaced: where it was bright it is brighter than elsewhere."""
    made = pixels(task())[0].mean(axis=2)

    assert made[:, 224:].mean() > made[:, :32].mean() + 40


def test_each_step_is_told_and_may_stop_the_edit():
    """With a preview; a stop goes through."""
    told = []

    def on_step(done, of, jpeg):
        told.append((done, of, jpeg[:2]))
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        EmbeddedEditor().edit(task(count=2), on_step)

    assert told == [(n, 4, b"\xff\xd8") for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("capability", "kind"),
    [
        ((7, 5), "int4"),
        ((8, 0), "int4"),
        ((8, 6), "int4"),
        ((8, 9), "int4"),
        ((12, 0), "fp4"),
        ((12, 1), "fp4"),
    ],
    ids=["turing", "a100", "ampere", "ada", "blackwell", "gb10"],
)
def test_the_card_decides_the_precision(capability, kind):
    """As nunchaku does."""
    assert weights.precision(capability) == kind


@pytest.mark.parametrize(
    "capability", [(6, 1), (7, 0), (9, 0), (10, 0)], ids=lambda c: f"{c[0]}.{c[1]}"
)
def test_a_card_without_kernels_is_named(capability):
    """Hopper among them, which nunchaku refuses."""
    with pytest.raises(EditorMissing, match=rf"{capability[0]}\.{capability[1]}"):
        weights.precision(capability)


@pytest.mark.parametrize(
    ("free_gb", "plan"),
    [(80, "none"), (40, "none"), (24, "model"), (18, "layers"), (4, "layers")],
)
def test_free_memory_decides_the_offload(free_gb, plan):
    """What is not in use leaves a card that is too small for all."""
    assert weights.offload(free_gb) == plan


def test_missing_weights_are_named(tmp_path):
    """Each of them, until it is there."""
    both = weights.absent([tmp_path], "int4")
    transformer = tmp_path / both[1]
    transformer.parent.mkdir()
    transformer.touch()

    assert both[0] == "diffusers/Qwen-Image-Edit-2509/model_index.json"
    assert both[1].startswith("diffusion_models/svdq-int4_r128")
    assert weights.absent([tmp_path], "int4") == both[:1]


@pytest.mark.parametrize(
    ("pipeline", "transformer"),
    [
        ("models/diffusers", "models/diffusion_models"),
        ("models", "models"),
        (".", "."),
    ],
    ids=["of the manifest", "in models", "in the root"],
)
def test_weights_are_found_where_people_put_them(tmp_path, pipeline, transformer):
    """Where the manifest says, and where older instructions said."""
    models = tmp_path / "models"
    folder = tmp_path / pipeline / weights.PIPELINE
    file = tmp_path / transformer / weights.transformer_file("fp4")
    for path in (models / "x", folder / "model_index.json", file):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    assert weights.absent([models], "fp4") == []
    assert weights.pipeline_folder([models]).samefile(folder)
    assert weights.transformer_path([models], "fp4").samefile(file)


def test_weights_of_an_image_are_found_below_a_volume(tmp_path):
    """The volume may be empty, or have one of the two."""
    volume, image = folders = [tmp_path / "volume/models", tmp_path / "image/models"]
    pipeline = image / "diffusers" / weights.PIPELINE
    file = volume / "diffusion_models" / weights.transformer_file("fp4")
    for path in (pipeline / "model_index.json", file):
        path.parent.mkdir(parents=True)
        path.touch()

    assert weights.absent(folders, "fp4") == []
    assert weights.pipeline_folder(folders) == pipeline
    assert weights.transformer_path(folders, "fp4") == file
    assert weights.absent(folders, "int4") == [
        f"diffusion_models/{weights.transformer_file('int4')}"
    ]


def test_a_file_that_was_repaired_above_counts(tmp_path):
    """By itself, and whichever it is; the others stay where they are."""
    volume, image = folders = [tmp_path / "volume/models", tmp_path / "image/models"]
    for models, said in ((image, "baked"), (volume, "repaired")):
        folder = models / "diffusers" / weights.PIPELINE
        (folder / "vae").mkdir(parents=True)
        (folder / "vae/weights.safetensors").write_text(said)
    (image / "diffusers" / weights.PIPELINE / "model_index.json").write_text("baked")
    with weights.pipeline(folders) as found:
        said = {p.name: p.read_text() for p in found.rglob("*.*")}

    assert said == {"weights.safetensors": "repaired", "model_index.json": "baked"}
    assert (volume / "diffusers" / weights.PIPELINE).is_dir()
    with weights.pipeline([image]) as found:
        assert found == image / "diffusers" / weights.PIPELINE


def test_the_model_needs_a_folder_of_weights():
    """Said before anything is imported."""
    with pytest.raises(EditorMissing, match="--models"):
        editor("qwen", ())


def test_what_keeps_the_model_from_running_is_said(tmp_path, monkeypatch):
    """The card first, then the weights, then the libraries."""

    def no_card():
        raise EditorMissing("no card")

    monkeypatch.setattr(weights, "_capability", no_card)
    assert weights.obstacle([tmp_path]) == "no card"

    monkeypatch.setattr(weights, "_capability", lambda: (12, 0))
    assert "svdq-fp4" in weights.obstacle([tmp_path])

    coming = weights.obstacle([tmp_path], fetched=True)
    for name in weights.absent([tmp_path], "fp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    found = weights.obstacle([tmp_path])
    assert coming == found
    assert found is None or found.endswith("is not installed; README.md says how")


def test_the_card_decides_what_is_fetched(monkeypatch):
    """One precision of the two; without a card that is known, the model's default."""
    monkeypatch.setattr(weights, "_capability", lambda: (12, 0))
    assert weights.variant_of_card() == {"qwen-image-edit@2509": "fp4"}

    monkeypatch.setattr(weights, "_capability", lambda: (9, 0))
    assert weights.variant_of_card() == {}

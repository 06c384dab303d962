"""The real pipeline on a CPU, with small random weights that the test makes."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from common.engine.editors import Edit, EditorMissing, WeightsMissing, weights
from common.engine.editors.qwen import QwenEditor, quantized

torch = pytest.importorskip(
    "torch", reason="torch is not installed: pip install '.[qwen]'"
)
diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install '.[qwen]'"
)
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[qwen]'"
)

# The libraries warn of each other's old names.
pytestmark = pytest.mark.filterwarnings("default")

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let the pipeline scale what it is given to a thumbnail, not to a megapixel."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    monkeypatch.setattr(module, "VAE_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", 64 * 64)


def tokenizer(folder):
    """Return a tokenizer of single bytes."""
    from transformers.models.qwen2.tokenization_qwen2 import bytes_to_unicode

    folder.mkdir()
    letters = sorted(bytes_to_unicode().values())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    made = transformers.Qwen2Tokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    return made


def text_encoder(ids):
    """Return a vision-language model of two narrow layers."""
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {
                "mrope_section": [1, 1, 2],
                "rope_type": "default",
                "type": "default",
            },
            "rope_theta": 1000000.0,
            "vocab_size": 512,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
        hidden_size=16,
        vocab_size=512,
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config).eval()


def transformer(folders):
    """Return a transformer of two narrow layers."""
    torch.manual_seed(0)
    return diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A models folder with everything but the quantized transformer."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    words = tokenizer(folder / "words")
    ids = {token: words.convert_tokens_to_ids(token) for token in SPECIAL}
    z = 4
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=z * 6,
        z_dim=z,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * z,
        latents_std=[1.0] * z,
    )
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(),
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(),
    )
    pipeline = diffusers.QwenImageEditPlusPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=text_encoder(ids),
        tokenizer=words,
        processor=processor,
        transformer=transformer(folder),
    )
    pipeline.save_pretrained(folder / weights.PIPELINE)
    return folder


def task(**changes):
    """Return a small edit."""
    facts = {
        "images": (Image.new("RGB", (64, 48), (200, 80, 40)),),
        "prompt": "winter",
        "negative_prompt": "",
        "steps": 2,
        "cfg": 1.0,
        "seed": 7,
        "width": 64,
        "height": 64,
    }
    return Edit(**{**facts, **changes})


def test_the_pipeline_is_loaded_and_edits(models):
    """Two pictures of two, step by step; the second is what its seed makes alone."""
    editor = QwenEditor([models], transformer)
    told = []
    given = (task().images[0], Image.new("RGB", (48, 64)))
    two = editor.edit(task(images=given, count=2), lambda *step: told.append(step))
    second = editor.edit(task(images=given, seed=8), lambda *step: None)

    assert [(one.size, one.mode) for one in two] == [((64, 64), "RGB")] * 2
    assert told == [(n, 4, None) for n in (1, 2, 3, 4)]
    assert np.array_equal(np.asarray(two[1]), np.asarray(second[0]))
    assert not np.array_equal(np.asarray(two[0]), np.asarray(two[1]))


def test_guidance_leads_away_from_the_negative_prompt(models):
    """It counts where cfg is over 1, and only there."""
    editor = QwenEditor([models], transformer)

    def made(**changes):
        return np.asarray(editor.edit(task(**changes), lambda *step: None)[0])

    assert np.array_equal(made(), made(negative_prompt="snow"))
    assert not np.array_equal(made(cfg=4.0), made(cfg=4.0, negative_prompt="snow"))


def test_an_edit_can_be_stopped_and_the_next_one_runs(models):
    """Between two steps."""
    editor = QwenEditor([models], transformer)

    def stop(done, of, jpeg):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        editor.edit(task(), stop)
    assert len(editor.edit(task(), lambda *step: None)) == 1


def test_a_part_of_the_pipeline_that_is_absent_is_said(models, tmp_path):
    """It can be fetched, which a library cannot."""
    folder = shutil.copytree(models, tmp_path / "models")
    (path,) = (folder / weights.PIPELINE / "vae").glob("*.safetensors")
    path.unlink()

    with pytest.raises(WeightsMissing):
        QwenEditor([folder], transformer).edit(task(), lambda *step: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_the_quantized_weights_are_refused(models):
    """By name, before anything is read."""
    with pytest.raises(EditorMissing, match="no CUDA card"):
        quantized([models])

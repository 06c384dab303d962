"""
A ComfyUI extension without nodes: narrows models whose widths ComfyUI fixes in code.

Only so that files of random numbers, small enough for a CPU, load through its own
loaders. For tests alone: with it, no real weights would load.
"""

import comfy.ldm.wan.vae
import comfy.ldm.wan.vae2_2
import comfy.sd
import comfy.text_encoders.t5

NODE_CLASS_MAPPINGS = {}

# The width of 4,096 and the 24 blocks stay: files are told apart by them.
TEXT = {"d_ff": 8, "d_kv": 8, "num_heads": 1, "vocab_size": 512}
VAE = {"dim": 8}
VAE_2_2 = {"dim": 8, "dec_dim": 8}
MARK = "encoder.block.23.layer.1.DenseReluDense.wi_1.weight"


def wrap(cls, change):
    """Let `change` look at the arguments that a class is made with."""
    made = cls.__init__

    def init(self, *args, **options):
        change(args, options)
        made(self, *args, **options)

    cls.__init__ = init


def narrow_text(args, options):
    """Narrow the multilingual encoder, by its configuration."""
    config = args[0] if args else options["config_dict"]
    if config.get("model_type") == "umt5" and config.get("d_model") == 4096:
        config.update(TEXT)


wrap(comfy.text_encoders.t5.T5, narrow_text)
wrap(comfy.ldm.wan.vae.WanVAE, lambda _, options: options.update(VAE))
wrap(comfy.ldm.wan.vae2_2.WanVAE, lambda _, options: options.update(VAE_2_2))

_told = comfy.sd.detect_te_model


def told(weights):
    """Know the narrow encoder for what it is: later ComfyUIs look at its width too."""
    mark = weights.get(MARK)
    if mark is not None and tuple(mark.shape) == (TEXT["d_ff"], 4096):
        return comfy.sd.TEModel.T5_XXL
    return _told(weights)


comfy.sd.detect_te_model = told

"""
Make weights of random numbers under the names that our workflows load.

    COMFYUI/.venv/bin/python tests/tiny/weights.py COMFYUI [BASE]

Into BASE, which is COMFYUI unless its models are kept elsewhere; with the extension
that lets ComfyUI load them. The tensors are those of ComfyUI's own classes, so that its
loaders find what they look for; what comes out is noise. Needs ComfyUI's Python.
"""

import argparse
import io
import json
import math
import shutil
import sys
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent

# The pairs of the 14B: which request, its LoRAs' version, channels that go in.
PAIRS = [("i2v", "v1", 36), ("t2v", "v1.1", 16)]
LIGHTNING = "loras/wan2.2_{}_lightx2v_4steps_lora_{}_{}_noise.safetensors"
PAIR = "diffusion_models/wan2.2_{}_{}_noise_14B_fp8_scaled.safetensors"

# Each file, by what makes it and of what shape; see `Maker`.
FILES = {
    "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors": ("text",),
    "vae/wan2.2_vae.safetensors": ("vae_2_2",),
    "vae/wan_2.1_vae.safetensors": ("vae",),
    "diffusion_models/wan2.2_ti2v_5B_fp16.safetensors": ("model", 48, 48),
    "loras/Wan2_2_5B_FastWanFullAttn_lora_rank_128_bf16.safetensors": ("lora", 48, 48),
    "loras/extra_style.safetensors": ("lora", 48, 48),
    "diffusion_models/wan2.1_i2v_480p_14B_fp8_scaled.safetensors": ("talking_model",),
    "loras/lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors": (
        "talking_lora",
    ),
    "model_patches/wan2.1_infiniteTalk_single_fp16.safetensors": ("talk",),
    "model_patches/wan2.1_infiniteTalk_multi_fp16.safetensors": ("talk",),
    "audio_encoders/wav2vec2-chinese-base_fp16.safetensors": ("speech",),
}
for kind, version, channels in PAIRS:
    for part in ("high", "low"):
        FILES[PAIR.format(kind, part)] = ("scaled_model", channels, 16)
        FILES[LIGHTNING.format(kind, version, part)] = ("lora", channels, 16)

WIDTH = 128  #: of one head, the narrowest that ComfyUI takes
TALK_WIDTH = 640  #: heads of 128 here, 40 heads in the patch
SAMPLE = (
    "a the of in on with and person woman man speaking to camera slow motion video"
    " cinematic light sun sea fox snow runs turns head city night rain wide shot"
)


class Maker:
    """Makes the tensors of one kind of file."""

    def __init__(self, seed=0):
        import comfy.ops
        import torch

        self.torch = torch
        self.ops = comfy.ops.disable_weight_init
        self.random = torch.Generator().manual_seed(seed)
        self.on_paper = {
            "device": "meta",
            "dtype": torch.float16,
            "operations": self.ops,
        }

    def numbers(self, module):
        """Return random weights of a module's shapes; norms and biases do nothing."""
        torch, found = self.torch, {}
        for name, like in module.state_dict().items():
            last = name.rpartition(".")[2]
            if last == "gamma" or (last == "weight" and like.ndim == 1):
                value = torch.ones(like.shape)
            elif last == "bias":
                value = torch.zeros(like.shape)
            else:
                spread = 0.7 / math.sqrt(max(math.prod(like.shape[1:]), 1))
                value = torch.empty(like.shape).normal_(generator=self.random) * spread
            found[name] = value.to(torch.float16)
        return found

    def scaled(self, module, mark):
        """Return them in eight bits with a scale each, as the fp8_scaled files are."""
        torch, found = self.torch, self.numbers(module)
        for name, part in module.named_modules():
            if isinstance(part, torch.nn.Linear):
                value = found[f"{name}.weight"].float()
                scale = value.abs().max().clamp(min=1e-8) / 448  # the largest e4m3
                found[f"{name}.weight"] = (value / scale).to(torch.float8_e4m3fn)
                found[f"{name}.scale_weight"] = scale
        found["scaled_fp8"] = torch.zeros(mark, dtype=torch.float8_e4m3fn)
        return found

    def transformer(self, channels, out, width=WIDTH, kind="t2v"):
        """Return a video model of two blocks, on paper."""
        from comfy.ldm.wan.model import WanModel

        return WanModel(
            model_type=kind,
            in_dim=channels,
            out_dim=out,
            dim=width,
            ffn_dim=256,
            num_heads=width // WIDTH,
            num_layers=2,
            **self.on_paper,
        )

    def model(self, channels, out):
        return self.numbers(self.transformer(channels, out))

    def scaled_model(self, channels, out):
        return self.scaled(self.transformer(channels, out), mark=(2,))

    def talking_model(self):
        return self.numbers(self.transformer(36, 16, TALK_WIDTH, "i2v"))

    def lora(self, channels, out, width=WIDTH, kind="t2v", rank=4):
        """Return two thin matrices for each linear layer of the blocks."""
        found = {}
        small = partial(self.torch.randn, generator=self.random)
        module = self.transformer(channels, out, width, kind)
        for name, part in module.named_modules():
            if isinstance(part, self.torch.nn.Linear) and name.startswith("blocks."):
                rows, columns = part.weight.shape
                key = f"diffusion_model.{name}"
                found[f"{key}.lora_down.weight"] = small(rank, columns) * 0.02
                found[f"{key}.lora_up.weight"] = small(rows, rank) * 0.02
        return {k: v.to(self.torch.bfloat16) for k, v in found.items()}

    def talking_lora(self):
        return self.lora(36, 16, TALK_WIDTH, "i2v")

    def talk(self):
        from comfy_extras.nodes_model_patch import MultiTalkModelPatch

        patch = MultiTalkModelPatch(
            in_dim=TALK_WIDTH, intermediate_dim=8, out_dim=16, **self.on_paper
        )
        return self.numbers(patch)

    def speech(self):
        """Return a speech encoder; its base size is fixed, so this one is 190 MB."""
        from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model

        encoder = Wav2Vec2Model(
            embed_dim=768,
            num_heads=12,
            num_layers=12,
            conv_norm=False,
            conv_bias=False,
            do_normalize=False,
            do_stable_layer_norm=False,
            **self.on_paper,
        )
        return self.numbers(encoder)

    def vae(self):
        from comfy.ldm.wan.vae import WanVAE

        return self.coder(WanVAE, z_dim=16)

    def vae_2_2(self):
        from comfy.ldm.wan.vae2_2 import WanVAE

        return self.coder(WanVAE, z_dim=48)

    def coder(self, cls, z_dim):
        with self.torch.device("meta"):
            module = cls(z_dim=z_dim, temperal_downsample=[False, True, True])
        return self.numbers(module)

    def text(self):
        """Return a text encoder, with a vocabulary of its own in the file."""
        import comfy.text_encoders.t5 as t5

        path = Path(t5.__file__).with_name("umt5_config_xxl.json")
        config = json.loads(path.read_text(encoding="utf-8"))
        encoder = t5.T5(config, self.torch.float16, "meta", self.ops)
        pieces = bytearray(vocabulary())
        table = self.torch.frombuffer(pieces, dtype=self.torch.uint8).clone()
        return {**self.scaled(encoder, mark=(0,)), "spiece_model": table}


def vocabulary():
    """Return a sentencepiece model of a few words, which can spell any other."""
    import sentencepiece

    model = io.BytesIO()
    words = SAMPLE.split()
    lines = [" ".join(words[i:] + words[:i]) for i in range(len(words))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 4),
        model_writer=model,
        model_type="unigram",
        vocab_size=400,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("base", type=Path, nargs="?")
    given = parser.parse_args()
    base = given.base or given.comfyui

    sys.argv = [sys.argv[0], "--cpu"]  # ComfyUI reads it as it is imported
    sys.path[:0] = [str(given.comfyui.absolute()), str(HERE)]
    import comfy.options

    comfy.options.enable_args_parsing()
    import narrow  # the extension narrows what is made here too
    from safetensors.torch import save_file

    (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
    shutil.copy(narrow.__file__, base / "custom_nodes" / "narrow.py")
    maker = Maker()
    for name, (make, *shape) in FILES.items():
        path = base / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = getattr(maker, make)(*shape)
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
        sys.stdout.write(f"{path.stat().st_size / 1e6:8.1f} MB  {name}\n")


if __name__ == "__main__":
    main()

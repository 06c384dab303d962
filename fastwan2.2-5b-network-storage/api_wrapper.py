"""
FastWan 2.2 TI2V 5B: a prompt, and perhaps a first frame, to 24 fps video.

The weights are read from a volume; a LoRA distils the model to a few steps without
guidance, so that a five-second 720p clip takes seconds instead of minutes.
"""

from pathlib import Path
from typing import Annotated

from common.clip import Clip
from common.estimate import Memory, sampling_bytes
from common.fields import (
    Cfg,
    Fps,
    Frames,
    Height,
    Image,
    Loras,
    NegativePrompt,
    Prompt,
    Sampler,
    Scheduler,
    Seconds,
    Seed,
    Shift,
    Steps,
    Width,
)
from common.loras import insert
from common.request import Patch
from common.service import Service
from common.workflow import Workflow


class Generate(Clip):
    """One clip. Defaults are the settings the workflow was exported with."""

    max_area = 1280 * 704
    max_volume = 1280 * 704 * 121

    prompt: Annotated[Prompt, Patch("Positive prompt", "text")]
    negative_prompt: Annotated[
        NegativePrompt | None, Patch("Negative prompt", "text")
    ] = None
    image: Annotated[Image | None, Patch("First frame", "image")] = None

    width: Annotated[Width, Patch("Latent", "width")] = 1280
    height: Annotated[Height, Patch("Latent", "height")] = 704
    frames: Annotated[Frames, Patch("Latent", "length")] = 121
    seconds: Seconds | None = None
    fps: Annotated[Fps, Patch("Video", "fps")] = 24

    steps: Annotated[Steps, Patch("Sampler", "steps")] = 8
    cfg: Annotated[Cfg, Patch("Sampler", "cfg")] = 1.0
    seed: Annotated[Seed | None, Patch("Sampler", "seed")] = None
    sampler: Annotated[Sampler, Patch("Sampler", "sampler_name")] = "euler"
    scheduler: Annotated[Scheduler, Patch("Sampler", "scheduler")] = "simple"
    shift: Annotated[Shift, Patch("Shift", "shift")] = 8.0
    loras: Loras

    def apply(self, workflow: Workflow) -> Workflow:
        """Chain the LoRAs; without an image, run the same graph as text-to-video."""
        patched = super().apply(workflow)
        for lora in self.loras:
            insert(patched, "Shift", lora.name, lora.strength)
        if self.image is None:
            patched.unlink("Latent", "start_image")
        return patched


service = Service(
    Generate,
    folder=Path(__file__).parent,
    title="FastWan 2.2 5B",
    kind="video",
    output="Save video",
    # Weights: the sizes of the files. Else what ComfyUI plans with: a transformer 3072
    # wide, and for the 2.2 VAE 8000 numbers for each pixel (comfy/sd.py).
    memory=Memory(
        text_encoder_gb=6.7,
        model_gb=10.0,
        vae_gb=1.4,
        latent_bytes=sampling_bytes(3072 / 2222),
        pixel_bytes=8000 * 2,
        side=16,
    ),
)

"""
Wan 2.2 14B: a picture, or none, and a prompt to 16 fps video, with LoRAs.

Two models share the steps: one for high noise, which lays out the motion, and one for
low noise, which draws the detail. The Lightning LoRAs make a few steps enough.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field

from common.clip import Clip
from common.errors import FieldError
from common.estimate import Memory, sampling_bytes
from common.fields import (
    Cfg,
    EndImage,
    Fps,
    Frames,
    Height,
    Image,
    Lightning,
    NegativePrompt,
    PairedLoras,
    Prompt,
    Sampler,
    Scheduler,
    Seconds,
    Seed,
    Shift,
    Steps,
    SwitchStep,
    Width,
)
from common.loras import insert
from common.request import Patch, Variant
from common.service import Service
from common.workflow import Workflow

TEXT_ONLY = Variant(
    "workflow_t2v_api.json", "text-to-video", without=("image", "end_image")
)


class Generate(Clip):
    """One clip. Defaults are the settings the workflows were exported with."""

    # The largest size that the models are made for, at their own length.
    # Source: SUPPORTED_SIZES in wan/configs/__init__.py of Wan-Video/Wan2.2.
    max_area = 1280 * 720
    max_volume = 1280 * 720 * 81
    aliases: ClassVar = {"image_url": "image"}
    variants: ClassVar = (TEXT_ONLY,)

    prompt: Annotated[Prompt, Patch("Positive prompt", "text")]
    negative_prompt: Annotated[
        NegativePrompt | None, Patch("Negative prompt", "text")
    ] = None
    image: Annotated[
        Image | None,
        Field(
            description=(
                "The picture that the video starts with: PNG, JPEG or WebP, as an"
                " upload id, an http(s) URL, base64 or a data URI; a file part in a"
                " multipart request. `image_url` is another name. Absent:"
                " text-to-video, if its weights are there."
            )
        ),
        Patch("First frame", "image"),
    ] = None
    end_image: Annotated[EndImage | None, Patch("Last frame", "image")] = None

    width: Annotated[Width, Patch("Latent", "width")] = 640
    height: Annotated[Height, Patch("Latent", "height")] = 640
    frames: Annotated[Frames, Patch("Latent", "length")] = 81
    seconds: Seconds | None = None
    fps: Annotated[Fps, Patch("Video", "fps")] = 16

    steps: Annotated[
        Steps,
        Field(ge=2, description="Denoising steps of both models together."),
        Patch("High-noise sampler", "steps"),
        Patch("Low-noise sampler", "steps"),
        Patch("Low-noise sampler", "end_at_step"),
    ] = 6
    switch_step: Annotated[
        SwitchStep | None,
        Patch("High-noise sampler", "end_at_step"),
        Patch("Low-noise sampler", "start_at_step"),
    ] = None
    cfg_high_noise: Annotated[Cfg, Patch("High-noise sampler", "cfg")] = 3.5
    cfg_low_noise: Annotated[Cfg, Patch("Low-noise sampler", "cfg")] = 3.5
    seed: Annotated[Seed | None, Patch("High-noise sampler", "noise_seed")] = None
    sampler: Annotated[
        Sampler,
        Patch("High-noise sampler", "sampler_name"),
        Patch("Low-noise sampler", "sampler_name"),
    ] = "euler"
    scheduler: Annotated[
        Scheduler,
        Patch("High-noise sampler", "scheduler"),
        Patch("Low-noise sampler", "scheduler"),
    ] = "simple"
    shift: Annotated[
        Shift, Patch("High-noise shift", "shift"), Patch("Low-noise shift", "shift")
    ] = 5.0
    lightning: Lightning = True
    loras: PairedLoras

    def problems(self) -> Iterator[FieldError]:
        """Yield what is wrong between the fields."""
        yield from super().problems()
        if self.end_image is not None and self.image is None:
            yield FieldError("end_image", "needs an image to begin with", "send image")
        if self.switch_step is not None and self.switch_step >= self.steps:
            yield FieldError(
                "switch_step",
                f"leaves the low-noise model none of {self.steps} steps",
                f"use 1 to {self.steps - 1}, or more steps",
            )

    def settled(self) -> Self:
        """Return the request with the step at which the models change decided."""
        step = self.steps // 2 if self.switch_step is None else self.switch_step
        return super().settled().model_copy(update={"switch_step": step})

    def variant(self) -> Variant | None:
        """Without an image, the models for text-to-video do it."""
        return TEXT_ONLY if self.image is None else None

    def apply(self, workflow: Workflow) -> Workflow:
        """Chain the LoRAs of each model; drop what is not asked for."""
        patched = super().apply(workflow)
        if self.image is not None and self.end_image is None:
            patched.unlink("Latent", "end_image")
        if not self.lightning:
            patched.bypass("High-noise Lightning", "model")
            patched.bypass("Low-noise Lightning", "model")
        for lora in self.loras:
            low = lora.strength if lora.strength_low is None else lora.strength_low
            insert(patched, "High-noise shift", lora.name, lora.strength)
            insert(patched, "Low-noise shift", lora.name_low or lora.name, low)
        return patched


service = Service(
    Generate,
    folder=Path(__file__).parent,
    title="Wan 2.2 14B with LoRAs",
    kind="video",
    output="Save video",
    # Weights: the sizes of the files; the two models take turns. The rest is what
    # ComfyUI plans with: a transformer 5120 wide, and for the 2.1 VAE 7000 numbers for
    # each pixel (comfy/sd.py).
    memory=Memory(
        text_encoder_gb=6.7,
        model_gb=14.3,
        vae_gb=0.3,
        latent_bytes=sampling_bytes(5120 / 2222),
        pixel_bytes=7000 * 2,
    ),
)

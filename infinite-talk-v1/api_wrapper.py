"""
InfiniteTalk on Wan 2.1 14B: a picture and a recording of speech to a talking video.

The clip is as long as the recording, and carries it. The model makes windows of 81
frames; longer clips are chained window by window in one graph. With a second recording
and a mask of each face, two people in the picture speak one after the other.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

from common.errors import FieldError, InvalidInput
from common.estimate import Memory, sampling_bytes
from common.fields import (
    Audio,
    Cfg,
    Height,
    Image,
    NegativePrompt,
    Priority,
    Prompt,
    Seed,
    Shift,
    Steps,
    Width,
    clip_length,
    over_area,
    ui,
)
from common.job import Expected
from common.request import MediaFacts, Patch, Request
from common.service import Service
from common.talk import FPS, MAX_SECONDS, WINDOW, frames_of, windows
from common.talk_graph import chain
from common.workflow import Workflow

MAX_AREA = 1280 * 720

TalkPrompt = Annotated[Prompt, Field(examples=["a woman speaks to the camera"])]
TalkFrames = Annotated[
    int,
    Field(
        ge=5,
        le=MAX_SECONDS * FPS,
        description="Frames of the clip. Absent: as many as the recording lasts.",
        json_schema_extra=ui("number", "length", unit="frames", advanced=True),
    ),
]
TalkFps = Annotated[
    int,
    Field(
        ge=FPS,
        le=FPS,
        description="Frames per second: the model's own pace, at which lips keep time.",
        json_schema_extra=ui("number", "length", unit="fps", advanced=True),
    ),
]
MaxSeconds = Annotated[
    float,
    Field(
        ge=0.2,
        le=MAX_SECONDS,
        description="The clip ends here although the recording goes on.",
        json_schema_extra=ui("number", "length", unit="s"),
    ),
]
MotionFrames = Annotated[
    int,
    Field(
        ge=1,
        le=33,
        description="Frames, 4n + 1, that a window takes over from the one before.",
        json_schema_extra=ui("slider", "length", unit="frames", step=4, advanced=True),
    ),
    AfterValidator(clip_length),
]
AudioScale = Annotated[
    float,
    Field(
        ge=0,
        le=10,
        description="How strongly the voice moves the face; 1 as trained.",
        json_schema_extra=ui("slider", "sampling", step=0.1),
    ),
]
Mask = Annotated[
    Image,
    Field(
        description="White where the speaker is, of the image's size; with `audio_2`.",
        json_schema_extra=ui("image", "second speaker", advanced=True),
    ),
]


TurnSeconds = Annotated[
    float,
    Field(
        ge=0,
        le=MAX_SECONDS,
        description="When the second speaker begins; follows from the first recording.",
        json_schema_extra={"readOnly": True},
    ),
]


class Generate(Request):
    """One clip. Defaults are the settings the workflow was exported with."""

    image: Annotated[Image, Patch("First frame", "image")]
    audio: Annotated[Audio, Patch("Speech", "audio")]
    prompt: Annotated[TalkPrompt, Patch("Positive prompt", "text")] = (
        "a person is speaking to the camera"
    )
    negative_prompt: Annotated[
        NegativePrompt | None, Patch("Negative prompt", "text")
    ] = None

    width: Annotated[Width, Patch("Talk", "width")] = 640
    height: Annotated[Height, Patch("Talk", "height")] = 640
    frames: TalkFrames | None = None
    max_seconds: MaxSeconds = float(MAX_SECONDS)
    fps: Annotated[TalkFps, Patch("Video", "fps")] = FPS

    steps: Annotated[Steps, Patch("Sampler", "steps")] = 4
    cfg: Annotated[Cfg, Patch("Sampler", "cfg")] = 1.0
    seed: Annotated[Seed | None, Patch("Sampler", "seed")] = None
    shift: Annotated[Shift, Patch("Shift", "shift")] = 8.0
    audio_scale: Annotated[AudioScale, Patch("Talk", "audio_scale")] = 1.0
    motion_frames: Annotated[MotionFrames, Patch("Talk", "motion_frame_count")] = 9

    audio_2: Annotated[Audio | None, Patch("Speech 2", "audio")] = None
    mask: Annotated[Mask | None, Patch("Mask picture", "image")] = None
    mask_2: Annotated[Mask | None, Patch("Mask 2 picture", "image")] = None
    turn_s: TurnSeconds | None = None
    priority: Priority = 3

    def problems(self) -> Iterator[FieldError]:
        """Yield what is wrong between the fields."""
        if error := over_area(self.width, self.height, MAX_AREA, 32):
            yield error
        second = ("audio_2", "mask", "mask_2")
        absent = [name for name in second if getattr(self, name) is None]
        if absent and len(absent) < len(second):
            yield FieldError(
                absent[0],
                "is missing: a second speaker needs audio_2, mask and mask_2",
                "send all three, or none",
            )

    def fitted(self, media: Mapping[str, MediaFacts]) -> Self:
        """Return the request with the clip's length, which is that of the sound."""
        for name in ("mask", "mask_2"):
            self._check_mask(name, media)
        first_s = media["audio"].duration_s or 0.0
        second = media.get("audio_2")
        whole_s = first_s + ((second and second.duration_s) or 0.0)
        there = frames_of(min(whole_s, self.max_seconds))
        if self.frames is not None and self.frames > there:
            message = f"is over the {there} frames that the recording lasts"
            raise InvalidInput.of("frames", message, f"use {there}, or leave it out")
        turn_s = first_s if second else None
        if self.turn_s not in (None, turn_s):
            message = "is not to be chosen: it follows from the first recording"
            raise InvalidInput.of("turn_s", message, "leave it out")
        return self.model_copy(
            update={"frames": self.frames or there, "turn_s": turn_s}
        )

    @staticmethod
    def _check_mask(name: str, media: Mapping[str, MediaFacts]) -> None:
        mask, image = media.get(name), media["image"]
        if mask and (mask.width, mask.height) != (image.width, image.height):
            raise InvalidInput.of(
                name,
                f"is {mask.width}×{mask.height} pixels, and the image is"
                f" {image.width}×{image.height}",
                "send a mask of the image's size",
            )

    def apply(self, workflow: Workflow) -> Workflow:
        """Chain as many windows as the clip is long."""
        patched = super().apply(workflow)
        chain(
            patched,
            frames=self.frames or frames_of(self.max_seconds),
            motion=self.motion_frames,
            seed=self.seed or 0,
            turn_s=None if self.audio_2 is None else self.turn_s or 0.0,
        )
        return patched

    @classmethod
    def expected(cls, accepted: Mapping[str, Any]) -> Expected:
        """Return the clip's size, length and pace; and that it is heard."""
        return Expected(
            "video",
            width=accepted["width"],
            height=accepted["height"],
            frames=accepted["frames"],
            fps=accepted["fps"],
            audio=True,
            parts=len(windows(accepted["frames"], accepted["motion_frames"])),
            sounds=("audio", "audio_2"),
        )


service = Service(
    Generate,
    folder=Path(__file__).parent,
    title="InfiniteTalk",
    kind="video",
    output="Save video",
    # Weights: the sizes of the files; the model with its patch of 5.1 GB. Else what
    # ComfyUI plans with: a transformer 5120 wide, and for the 2.1 VAE 7000 numbers for
    # each pixel (comfy/sd.py).
    memory=Memory(
        text_encoder_gb=6.7,
        model_gb=16.4 + 5.1,
        vae_gb=0.3,
        latent_bytes=sampling_bytes(5120 / 2222),
        pixel_bytes=7000 * 2,
        window=WINDOW,
    ),
    min_comfyui="0.12.1",
)

"""
The vocabulary of requests: one name, one range, one unit and one widget per setting.

Pure. Wrappers combine these with a `Patch`, so that `steps` means the same in each
service. `x-ui` in the JSON schema is what a form needs beyond the type.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from common.errors import FieldError
from common.request import Media, Refused
from common.text import clean_text
from common.video import is_clip_length, nearest_clip_length

# Browsers and JavaScript SDKs hold integers exactly only below 2**53.
MAX_SEED = 2**53 - 1


def ui(widget: str, group: str, **more: object) -> dict[str, Any]:
    """Return the schema extension that says how a form shows a field."""
    return {"x-ui": {"widget": widget, "group": group, **more}}


def clip_length(frames: int) -> int:
    """Refuse a frame count that the VAE would have to cut."""
    if not is_clip_length(frames):
        near = nearest_clip_length(frames)
        raise Refused(f"must be 4n + 1, such as {near}", hint=f"use {near}")
    return frames


def over_area(width: int, height: int, most: int, step: int) -> FieldError | None:
    """Refuse over `most` pixels; `step`: what the height in the hint is counted in."""
    if width * height <= most:
        return None
    return FieldError(
        "height",
        f"{width}×{height} is over {most:,} pixels",
        f"at width {width} use height {most // width // step * step} or less",
    )


Prompt = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2000,
        description="What the video shows.",
        examples=["a red fox trotting through fresh snow, morning light"],
        json_schema_extra=ui("textarea", "prompt"),
    ),
    AfterValidator(clean_text),
]
NegativePrompt = Annotated[
    str,
    Field(
        max_length=2000,
        description="What the video must not show. Absent: the model's own default.",
        json_schema_extra=ui("textarea", "prompt", advanced=True),
    ),
    AfterValidator(lambda text: text and clean_text(text)),
]
Image = Annotated[
    str,
    Media("image"),
    Field(
        min_length=1,
        description=(
            "PNG, JPEG or WebP: an upload id, an http(s) URL, base64 or a data URI;"
            " a file part in a multipart request."
        ),
        json_schema_extra=ui("image", "image"),
    ),
]
Audio = Annotated[
    str,
    Media("audio"),
    Field(
        min_length=1,
        description=(
            "WAV, MP3, M4A, Opus or Ogg, up to 10 minutes: an upload id, an http(s)"
            " URL, base64 or a data URI; a file part in a multipart request."
        ),
        json_schema_extra=ui("audio", "audio"),
    ),
]
Width = Annotated[
    int,
    Field(
        ge=256,
        le=1280,
        multiple_of=32,
        description="Pixels.",
        json_schema_extra=ui("slider", "size", unit="px", step=32),
    ),
]
Height = Width
Frames = Annotated[
    int,
    Field(
        ge=5,
        le=241,
        description="Frames of the clip, 4n + 1.",
        json_schema_extra=ui("slider", "length", unit="frames", step=4),
    ),
    AfterValidator(clip_length),
]
Seconds = Annotated[
    float,
    Field(
        gt=0,
        le=60,
        description="Length of the clip, instead of `frames`; the nearest 4n + 1.",
        json_schema_extra=ui("number", "length", unit="s"),
    ),
]
Fps = Annotated[
    int,
    Field(
        ge=8,
        le=60,
        description="Frames per second.",
        json_schema_extra=ui("slider", "length", unit="fps"),
    ),
]
Steps = Annotated[
    int,
    Field(
        ge=1,
        le=50,
        description="Denoising steps.",
        json_schema_extra=ui("slider", "sampling"),
    ),
]
Cfg = Annotated[
    float,
    Field(
        ge=0,
        le=30,
        description="Classifier-free guidance; 1 turns it off, and halves the time.",
        json_schema_extra=ui("slider", "sampling", step=0.1),
    ),
]
Shift = Annotated[
    float,
    Field(
        ge=0,
        le=100,
        description="Moves the noise schedule; higher gives motion more steps.",
        json_schema_extra=ui("slider", "sampling", step=0.1, advanced=True),
    ),
]
Seed = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_SEED,
        description="Same seed and request, same video. Absent: drawn and reported.",
        json_schema_extra=ui("seed", "sampling"),
    ),
]
# The names that both ComfyUI 0.3.64 and 0.12.1 list in KSampler and that suit a
# flow-matching model.
Sampler = Annotated[
    Literal[
        "euler",
        "euler_ancestral",
        "heun",
        "dpm_2",
        "dpmpp_2m",
        "dpmpp_2m_sde",
        "dpmpp_3m_sde",
        "dpmpp_sde",
        "lcm",
        "ipndm",
        "deis",
        "res_multistep",
        "gradient_estimation",
        "er_sde",
        "sa_solver",
        "uni_pc",
        "uni_pc_bh2",
    ],
    Field(
        description="Sampling algorithm.",
        json_schema_extra=ui("select", "sampling", advanced=True),
    ),
]
Scheduler = Annotated[
    Literal[
        "normal",
        "karras",
        "exponential",
        "sgm_uniform",
        "simple",
        "ddim_uniform",
        "beta",
        "linear_quadratic",
        "kl_optimal",
    ],
    Field(
        description="How noise is spread over the steps.",
        json_schema_extra=ui("select", "sampling", advanced=True),
    ),
]


_PART = r"[A-Za-z0-9]([A-Za-z0-9 ._+()-]*[A-Za-z0-9_+()-])?"

# A name is looked up in what the engine lists, never joined to a path; and it could
# not leave a folder: each part begins with a letter or digit and ends in no dot.
LoraName = Annotated[str, Field(max_length=200, pattern=rf"^{_PART}([/\\]{_PART})*$")]
Strength = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]


class Lora(BaseModel):
    """A LoRA on the volume, by its name there."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: LoraName
    strength: Strength = 1.0


class PairedLora(Lora):
    """A LoRA for a pair of models: `strength` is for high noise, `strength_low` low."""

    # Absent: the other half of `name`, if one is installed, and `name` itself if not.
    name_low: LoraName | None = None
    # Absent: as `strength`. 0 leaves a model out.
    strength_low: Strength | None = None


Loras = Annotated[
    list[Lora],
    Field(
        default_factory=list,
        max_length=4,
        description="LoRAs, applied in this order.",
        json_schema_extra=ui("loras", "model", advanced=True),
    ),
]
PairedLoras = Annotated[
    list[PairedLora],
    Field(
        default_factory=list,
        max_length=4,
        description=(
            "LoRAs, applied in this order: `name`, `strength`, `strength_low`. One half"
            " of a high/low pair brings its other half; any other goes to both models."
        ),
        json_schema_extra=ui("loras", "model", advanced=True),
    ),
]
EndImage = Annotated[
    Image,
    Field(description="The picture that the video ends with, given as `image` is."),
]
Lightning = Annotated[
    bool,
    Field(
        description="Use the Lightning LoRAs, which need few steps; without, give 20.",
        json_schema_extra=ui("toggle", "model", advanced=True),
    ),
]
SwitchStep = Annotated[
    int,
    Field(
        ge=1,
        le=49,
        description=(
            "The step at which the low-noise model takes over; below `steps`."
            " Absent: half of them."
        ),
        json_schema_extra=ui("slider", "sampling", advanced=True),
    ),
]

Priority = Annotated[
    int,
    Field(
        ge=1,
        le=5,
        description="1 goes first, 5 last; jobs of one priority go in order.",
        json_schema_extra=ui("select", "queue", advanced=True),
    ),
]

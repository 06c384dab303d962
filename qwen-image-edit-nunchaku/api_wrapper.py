"""
Qwen image edit: one to three pictures and a text to pictures. Needs no ComfyUI.

The engine is a child of the service: the model in nunchaku's 4-bit weights on a GPU
(`main.py`), and the embedded editor, which never pretends to be it, elsewhere.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from common.aspect import GRID, LEAST, MOST, fit
from common.errors import FieldError, InvalidInput
from common.estimate import Memory, sampling_bytes
from common.fields import (
    Cfg,
    Image,
    NegativePrompt,
    Priority,
    Prompt,
    Seed,
    Steps,
    over_area,
    ui,
)
from common.job import Expected
from common.request import MediaFacts, Patch, Refused, Request
from common.service import Service
from common.workflow import Workflow

MAX_AREA = 1536 * 1536

EditPrompt = Annotated[
    Prompt,
    Field(
        description="What to change, or what to make of the pictures.",
        examples=["make it a winter evening"],
    ),
]
EditNegativePrompt = Annotated[
    NegativePrompt,
    Field(description="What the picture must not show; counts where `cfg` is over 1."),
]
EditSeed = Annotated[
    Seed,
    Field(
        description=(
            "Same seed and request, same picture; each further one has the next seed."
            " Absent: drawn and reported."
        ),
    ),
]
Side = Annotated[
    int,
    Field(
        ge=LEAST,
        le=MOST,
        multiple_of=GRID,
        description=(
            "Pixels. Absent: the first picture's shape is kept, at about a megapixel or"
            " as the other side says."
        ),
        json_schema_extra=ui("slider", "size", unit="px", step=GRID),
    ),
]
Count = Annotated[
    int,
    Field(
        ge=1,
        le=4,
        description="How many pictures to make.",
        json_schema_extra=ui("slider", "size"),
    ),
]


class Generate(Request):
    """One edit. Defaults are the settings the workflow was exported with."""

    image: Annotated[Image, Patch("Picture", "image")]
    image_2: Annotated[Image | None, Patch("Picture 2", "image")] = None
    image_3: Annotated[Image | None, Patch("Picture 3", "image")] = None
    prompt: Annotated[EditPrompt, Patch("Edit", "prompt")]
    negative_prompt: Annotated[
        EditNegativePrompt | None, Patch("Edit", "negative_prompt")
    ] = None

    width: Annotated[Side | None, Patch("Edit", "width")] = None
    height: Annotated[Side | None, Patch("Edit", "height")] = None
    count: Annotated[Count, Patch("Edit", "count")] = 1

    steps: Annotated[Steps, Patch("Edit", "steps")] = 8
    cfg: Annotated[Cfg, Patch("Edit", "cfg")] = 1.0
    seed: Annotated[EditSeed | None, Patch("Edit", "seed")] = None
    priority: Priority = 3

    def problems(self) -> Iterator[FieldError]:
        """Yield what is wrong between the fields."""
        if self.width is None or self.height is None:
            return  # the shape follows from the first picture
        if error := over_area(self.width, self.height, MAX_AREA, GRID):
            yield error

    def fitted(self, media: Mapping[str, MediaFacts]) -> Self:
        """Return the request with its size, which may follow from the first picture."""
        first = media["image"]
        assert first.width is not None
        assert first.height is not None
        try:
            width, height = fit(
                first.width,
                first.height,
                given_width=self.width,
                given_height=self.height,
            )
        except Refused as refused:
            raise InvalidInput.of("image", str(refused), refused.hint) from None
        sized = self.model_copy(update={"width": width, "height": height})
        if problems := list(sized.problems()):
            one = problems[0]
            raise InvalidInput.of(one.field, one.message, one.hint)
        return sized

    def apply(self, workflow: Workflow) -> Workflow:
        """Unlink the pictures that were not given."""
        patched = super().apply(workflow)
        for name in ("image_2", "image_3"):
            if getattr(self, name) is None:
                patched.unlink("Edit", name)
        return patched

    @classmethod
    def expected(cls, accepted: Mapping[str, Any]) -> Expected:
        """Return the size of the pictures, and how many there are."""
        return Expected(
            "image",
            width=accepted["width"],
            height=accepted["height"],
            count=accepted["count"],
        )


service = Service(
    Generate,
    folder=Path(__file__).parent,
    title="Qwen Image Edit",
    kind="image",
    output="Save images",
    aliases=("/edit", "/edit-image"),
    comfyui=False,
    # Weights: the transformer's and the VAE's files; the text encoder's 8.29e9 numbers
    # at two bytes, as diffusers loads it. Activations as ComfyUI plans them for this
    # model (factor 1.8 in comfy/supported_models.py), twice, since the picture that is
    # edited is attended to as well.
    memory=Memory(
        text_encoder_gb=16.6,
        model_gb=12.7,
        vae_gb=0.3,
        latent_bytes=2 * sampling_bytes(1.8),
        pixel_bytes=7000 * 2,
        area=2**20,
    ),
)

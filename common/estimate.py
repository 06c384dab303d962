"""
The memory that a request will take, and smaller requests that fit a card.

Pure. GB are 10^9 bytes, as in the sizes of files; a card that is sold as 24 GB has 25.8
of them. All is computed from weights and shapes: nothing here was measured on a card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from common.video import latent_frames

MIB = 2**20

# Beside the model: what ComfyUI leaves free (400 MiB on Linux; Source:
# `EXTRA_RESERVED_VRAM` in its comfy/model_management.py), and the CUDA context with its
# libraries, some 0.5 GB.
OVERHEAD_GB = 1.0

Fields = Mapping[str, Any]
Value = int | float


@dataclass(frozen=True)
class Memory:
    """
    What one model's runs hold on the card, in three stages that follow one another.

    ComfyUI takes one stage's weights off the card when the next one needs the room, so
    the largest stage counts and not their sum. Weights are the sizes of their files.
    Activations are those that ComfyUI itself plans with: `sampling_bytes` for the
    transformer, and the VAE's `memory_used_decode` (comfy/sd.py) for one pixel, at two
    bytes a number. A VAE of Wan decodes a few frames at a time, whatever their number.
    """

    text_encoder_gb: float
    model_gb: float  #: of two that take turns, the larger
    vae_gb: float
    latent_bytes: int  #: activations for each latent pixel that is sampled
    pixel_bytes: int  #: activations for each pixel of a frame that is decoded
    side: int = 8  #: pixels along a latent pixel: what the VAE compresses by
    window: int | None = None  #: frames sampled at once, where a clip is made in parts
    area: int | None = None  #: pixels of a picture whose request leaves the size open

    def gb(self, width: int, height: int, frames: int = 1) -> float:
        """
        Return the GB that a run takes with all weights of a stage on the card.

        A smaller card may do: ComfyUI then keeps weights in the machine's memory and
        moves them in as they are needed, which is slower.
        """
        return self._gb(width * height, frames)

    def of(self, accepted: Fields) -> float | None:
        """Return the GB for an accepted request; None where its size is not known."""
        pixels = area_of(accepted) or self.area
        if pixels is None:
            return None
        return self._gb(pixels, accepted.get("frames") or self.window or 1)

    def _gb(self, pixels: int, frames: int) -> float:
        at_once = min(frames, self.window or frames)
        latents = pixels / self.side**2 * latent_frames(at_once)
        largest = max(
            self.text_encoder_gb,
            self.model_gb + latents * self.latent_bytes / 1e9,
            self.vae_gb + pixels * self.pixel_bytes / 1e9,
        )
        return ceil((largest + OVERHEAD_GB) * 10) / 10


def sampling_bytes(factor: float) -> int:
    """
    Return the activations that ComfyUI plans for each latent pixel, at two bytes each.

    Args:
        factor: the model's `memory_usage_factor` in comfy/supported_models.py; for Wan
            it is the transformer's width / 2222, which is 3072 in the 5B model and
            5120 in those of 14B.

    Source: `BaseModel.memory_required` in ComfyUI's comfy/model_base.py: latent pixels
    x bytes of the dtype x 0.01 x factor MiB, with an attention that keeps no matrix.

    >>> sampling_bytes(3072 / 2222)
    28994
    """
    return ceil(2 * 0.01 * factor * MIB)


def area_of(accepted: Fields) -> int | None:
    """Return the pixels of one frame, if the request says them."""
    width, height = accepted.get("width"), accepted.get("height")
    return width * height if width and height else None


@dataclass(frozen=True)
class Advice:
    """A smaller request: the fields to change, and what it then needs."""

    set: dict[str, Value]
    vram_gb: float
    text: str


def smaller(
    memory: Memory, schema: Fields, accepted: Fields, limit_gb: float, given: Fields
) -> list[Advice]:
    """
    Return the largest smaller size and the longest shorter length that fit.

    Each alone is enough. Fewer steps are no advice: they save time, not memory.

    Args:
        schema: the request's JSON schema, for the ranges of its fields.
        given: the caller's own fields: who gave `seconds` is advised in seconds.
    """
    found: list[Advice] = []
    for changes, spoken in (
        (_sizes(schema, accepted), _spoken_size),
        (_lengths(schema, accepted), _spoken_length),
    ):
        for change in changes:
            gb = memory.of({**accepted, **change})
            if gb is not None and gb <= limit_gb:
                change = _in_seconds(change, accepted, given)
                found.append(Advice(change, gb, f"{spoken(change)} takes {gb:g} GB"))
                break
    return found


def oom_hint(
    memory: Memory, schema: Fields, accepted: Fields, card_gb: float | None
) -> str | None:
    """
    Return what to do, with numbers, after a run for which the card was too small.

    Where the estimate says that it should have fitted, something else holds memory or
    the estimate is low: then the advice is to take a fifth less. So it is where not
    even the weights fit, which ComfyUI moves in and out.
    """
    gb = memory.of(accepted)
    if gb is None:
        return None
    said = f"it takes about {gb:g} GB{_at(accepted)}"
    fifth_less_gb = limit_gb = gb * 0.8
    if card_gb is not None:
        limit_gb = min(limit_gb, card_gb)
        said += f", and this card has {card_gb:.1f} GB"
        if gb <= card_gb:
            said += ": end what else uses the GPU"
    advice = smaller(memory, schema, accepted, limit_gb, {})
    advice = advice or smaller(memory, schema, accepted, fifth_less_gb, {})
    if not advice:
        return f"{said}; no smaller size would do: use smaller weights or a larger GPU"
    return f"{said}; {', or '.join(one.text for one in advice)}"


def _sizes(schema: Fields, accepted: Fields) -> Iterator[dict[str, Value]]:
    """Yield smaller sizes of about the same shape, the largest first."""
    if area_of(accepted) is None:
        return
    old = {name: accepted[name] for name in ("width", "height")}
    long, short = sorted(old, key=lambda name: -old[name])
    (least, step), (floor, grid) = _range(schema, long), _range(schema, short)
    for length in range((old[long] - 1) // step * step, least - 1, -step):
        other = old[short] * length / old[long] // grid * grid
        yield {**old, long: length, short: max(min(floor, old[short]), int(other))}


def _lengths(schema: Fields, accepted: Fields) -> Iterator[dict[str, Value]]:
    """Yield shorter lengths, the longest first."""
    if accepted.get("frames"):
        least, _ = _range(schema, "frames")
        for frames in range(accepted["frames"] - 4, least - 1, -4):
            yield {"frames": frames}


def _range(schema: Fields, name: str) -> tuple[int, int]:
    """Return the least value of a field, and its step."""
    field = schema["properties"][name]
    kinds = [field, *field.get("anyOf", ())]
    found: Fields = next((kind for kind in kinds if "minimum" in kind), {})
    return found.get("minimum", 1), found.get("multipleOf", 1)


def _in_seconds(
    change: dict[str, Value], accepted: Fields, given: Fields
) -> dict[str, Value]:
    if "frames" in change and given.get("seconds") is not None:
        return {"seconds": round(change["frames"] / accepted["fps"], 2)}
    return change


def _spoken_size(change: Fields) -> str:
    return f"{change['width']}×{change['height']}"


def _spoken_length(change: Fields) -> str:
    if "seconds" in change:
        return f"a length of {change['seconds']:g} s"
    return f"a length of {change['frames']} frames"


def _at(accepted: Fields) -> str:
    if area_of(accepted) is None:
        return ""
    frames = f"×{accepted['frames']}" if accepted.get("frames") else ""
    return f" at {_spoken_size(accepted)}{frames}"

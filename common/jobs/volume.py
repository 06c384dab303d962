"""What a request needs of the volume: its LoRAs by name, and the weights it runs on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from common.errors import InvalidInput
from common.loras import with_files
from common.request import Request
from common.service import Service

#: What the drop-down of (class, input) offers; None while no engine answers.
Choices = Callable[[str, str], Awaitable[tuple[str, ...] | None]]


async def with_loras(request: Request, choices: Choices) -> Request:
    """
    Replace each LoRA's name by the file's, as the engine lists it.

    Raises:
        UnknownLora: naming the LoRA; the hint lists near names.
    """
    wanted = getattr(request, "loras", [])
    if not wanted:
        return request
    installed = await choices("LoraLoaderModelOnly", "lora_name")
    found = [
        with_files(lora, installed, f"loras.{index}")
        for index, lora in enumerate(wanted)
    ]
    return request.model_copy(update={"loras": found})


async def check_weights(service: Service, request: Request, choices: Choices) -> None:
    """
    Refuse a request for a variant whose weights the volume does not hold.

    While no engine answers, that is ComfyUI's to judge. The main workflow's weights are
    GET /ready's matter: without them nothing works.

    Raises:
        InvalidInput: naming the field that avoids the variant, and the missing files.
    """
    variant = request.variant()
    if variant is None:
        return
    absent = []
    for file, (class_type, input_) in service.apply(request).weights().items():
        listed = await choices(class_type, input_)
        if listed is None:
            return
        if file not in listed:
            absent.append(file)
    if absent:
        raise InvalidInput.of(
            variant.without[0],
            f"this volume has no {variant.title} weights, so it is required",
            f"send one, or put there: {', '.join(absent)}",
        )

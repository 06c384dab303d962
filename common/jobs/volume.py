"""What a request needs of the volume: its LoRAs by name, and the weights it runs on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from common.errors import InvalidInput
from common.loras import with_files
from common.modes import Mode, given
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
    Refuse a request whose weights the volume does not hold, when another would work.

    While no engine answers, that is ComfyUI's to judge; where nothing works, GET /ready
    says what is missing.

    Raises:
        InvalidInput: naming the field that avoids the missing files, and the files.
    """
    absent = await _absent(service.apply(request).weights(), choices)
    if not absent:
        return
    usable = [m for m in service.modes if not await _absent(m.weights, choices)]
    if not usable:
        return
    asked = given(request)

    def changes(mode: Mode) -> list[str]:
        return [name for name, on in asked.items() if mode.given[name] is not on]

    field, *_ = changes(min(usable, key=lambda mode: len(changes(mode))))
    is_file, on = field in service.request.media_fields(), asked[field]
    send = (
        ("leave it out" if on else "send one") if is_file else f"send {not on}".lower()
    )
    have = f"for requests {'with' if on else 'without'} it"
    raise InvalidInput.of(
        field,
        f"this volume has no weights {have}" + ("" if on else ", so it is required"),
        f"{send}, or put there: {', '.join(absent)}",
    )


async def _absent(
    weights: Mapping[str, tuple[str, str]], choices: Choices
) -> list[str]:
    """Return the files that are not listed; none while no engine answers."""
    absent = []
    for file, (class_type, input_) in weights.items():
        listed = await choices(class_type, input_)
        if listed is not None and file not in listed:
            absent.append(file)
    return absent

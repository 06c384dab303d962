"""
Whether a container can do what it is for, each finding with its cure.

A finding is fatal only where nothing could work; the rest is said and the service
starts, since it shows on `/ready` what is still missing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from common.container.machine import Machine
from common.disk import free_bytes
from common.manifest import Manifest
from common.models.errors import BadManifest
from common.service import Service
from common.settings import Settings

GIB = 2**30

# Source: NVIDIA's CUDA compatibility guide: what is built with any CUDA 12 runs on a
# driver for CUDA 12.0, with the kernels of that driver's own cards.
LEAST_CUDA = (12, 0)
BUILT_WITH = (12, 8)  #: CUDA of the torch in our images
# Source: torch 2.10's wheels for CUDA 12.8 hold kernels for 7.0 and above; bf16 and the
# attention that ComfyUI takes want 7.5.
LEAST_CAPABILITY = (7, 5)
DATA_BYTES = 2 * GIB  #: some hundred clips
ENGINE_GB = 4.0  #: host memory of torch, ComfyUI and us beside the weights


class Level(Enum):
    """How bad it is."""

    FINE = auto()
    WARNING = auto()
    FATAL = auto()


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    cure: str = ""


def findings(
    service: Service, settings: Settings, machine: Machine, *, serves_http: bool = True
) -> Iterator[Finding]:
    """
    Look at one thing after the other.

    Args:
        serves_http: False for a worker that takes its jobs from a queue.
    """
    yield from _engine(service, settings)
    if _needs_card(settings):
        yield from _cards(settings, machine)
        yield from _memory(service, settings, machine)
    if serves_http:
        yield _key(settings)
    data = settings.data or Path("data") / service.name
    yield _folder(data.resolve(), "data", "WAN_DATA", Level.FATAL, DATA_BYTES)
    if settings.supplies:
        yield from _weights(service, settings, machine)


def _engine(service: Service, settings: Settings) -> Iterator[Finding]:
    kind = settings.engine_kind
    if kind == "embedded":
        yield Finding(
            Level.WARNING,
            "the embedded engine paints in place of the model",
            "set WAN_ENGINE=comfyui, or nunchaku for Qwen, on a machine with a GPU",
        )
    elif kind == "nunchaku" and service.comfyui:
        yield Finding(
            Level.FATAL,
            f"WAN_ENGINE is nunchaku, which cannot run {service.name}",
            "leave WAN_ENGINE as the image sets it",
        )


def _needs_card(settings: Settings) -> bool:
    """Tell whether the model runs in this container, and not on the CPU."""
    if settings.engine_kind == "embedded" or settings.engine_urls:
        return False
    return "--cpu" not in settings.comfy_launch_args.split()


def _cards(settings: Settings, machine: Machine) -> Iterator[Finding]:
    if not machine.cards or machine.cuda is None:
        yield Finding(
            Level.FATAL,
            "no NVIDIA GPU in this container",
            "start it with --gpus all (NVIDIA Container Toolkit on the host), or with"
            " WAN_ENGINE=embedded to try the service without one",
        )
        return
    built = _dotted(BUILT_WITH)
    driver = f"the driver runs CUDA {_dotted(machine.cuda)}"
    if machine.cuda < LEAST_CUDA:
        yield Finding(
            Level.FATAL,
            f"{driver}, the image is built with {built}",
            "update the host's driver to 570 or later, or rent a machine that has it",
        )
    elif machine.cuda < BUILT_WITH:
        yield Finding(
            Level.WARNING,
            f"{driver}, the image is built with {built}: some kernels may be missing,"
            " and an RTX 50 does not run at all",
            "update the host's driver to 570 or later",
        )
    else:
        yield Finding(Level.FINE, driver)
    for card in machine.cards:
        text = f"{card.name}, {card.vram_bytes / GIB:.0f} GiB"
        if card.capability < LEAST_CAPABILITY:
            yield Finding(
                Level.WARNING,
                f"{text}: compute capability {_dotted(card.capability)} is older than"
                f" {_dotted(LEAST_CAPABILITY)}, which torch and the models expect",
                "use an RTX 20 or T4, or anything newer",
            )
        else:
            yield Finding(Level.FINE, text)


def _memory(
    service: Service, settings: Settings, machine: Machine
) -> Iterator[Finding]:
    """
    Compare the memory with all that one job loads.

    Models that take turns on the card (text encoder, high noise, low noise) wait in the
    machine's memory, and are read from the volume again when it cannot hold them.
    """
    sizes = _sizes(service, settings)
    if not sizes:
        return
    needed_gb = ENGINE_GB + sum(sizes.values()) / 1e9
    text = (
        f"{machine.memory_bytes / 1e9:.0f} GB of memory; {service.name} wants"
        f" {needed_gb:.0f}"
    )
    if machine.memory_bytes / 1e9 >= needed_gb:
        yield Finding(Level.FINE, text)
        return
    yield Finding(
        Level.WARNING,
        f"{text}: models that take turns on the card do not fit, so each turn reads"
        " them from the volume again, or the kernel ends ComfyUI",
        "give the container more memory",
    )


def _weights(
    service: Service, settings: Settings, machine: Machine
) -> Iterator[Finding]:
    """Look at what is still to be fetched, and whether its place can take it."""
    root = settings.weights_root
    roots = (*settings.models_layers, root)
    for volume in set(machine.sealed) & set(settings.models_layers):
        yield Finding(
            Level.WARNING,
            f"{volume} cannot be written{_by_us()}: what it lacks goes to {root}",
            f"once, as root: chown -R 1000:1000 {volume}",
        )
    absent = {
        path: size
        for path, size in _sizes(service, settings).items()
        if not any(_holds(one / "models" / path, size) for one in roots)
    }
    if absent:
        wanted = sum(absent.values())
        yield _folder(root, "weights", "WAN_MODELS", Level.WARNING, wanted)
    else:
        yield Finding(Level.FINE, f"all weights of {service.name} are there")


def _holds(path: Path, size: int) -> bool:
    """Tell whether a file is there, as far as its size tells."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _sizes(service: Service, settings: Settings) -> dict[str, int]:
    """Return the largest kind of request's weights: path below `models/`, bytes."""
    try:
        manifest = Manifest.load(settings.models_manifest)
    except (BadManifest, OSError):
        return {}  # the service says so, with the line
    known = {file.name: file for file in manifest.files}
    loads = [
        {
            f"{known[name].folder}/{name}": known[name].size or 0
            for name in mode.weights
            if name in known
        }
        for mode in service.modes
    ]
    return max(loads, key=lambda sizes: sum(sizes.values()), default={})


def _key(settings: Settings) -> Finding:
    if settings.public and not settings.api_keys:
        return Finding(
            Level.FATAL,
            f"WAN_HOST is {settings.host}, which others can reach, and there is no key",
            "set WAN_API_KEYS, or WAN_API_KEYS_FILE to a file with one key a line",
        )
    return Finding(Level.FINE, f"listens on {settings.host}:{settings.port}")


def _folder(
    folder: Path, what: str, variable: str, level: Level, wanted_bytes: int
) -> Finding:
    """Look whether a folder can be written, and whether its volume has room."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".wan-{secrets.token_hex(8)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Finding(
            level,
            f"{folder} ({what}) cannot be written{_by_us()}: {error.strerror}",
            f"mount a volume there that this user may write to, or set {variable}",
        )
    free = free_bytes(folder)
    text = f"{folder} ({what}) has {free / 1e9:.1f} GB free"
    if free < wanted_bytes:
        return Finding(
            Level.WARNING,
            f"{text}, and {wanted_bytes / 1e9:.1f} GB may be needed",
            f"use a larger volume, or set {variable} to a folder on another one",
        )
    return Finding(Level.FINE, text)


def _by_us() -> str:
    return f" by user {os.getuid()}" if hasattr(os, "getuid") else ""


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))

"""
Why a run failed: a node's exception as one of our job error codes.

Pure. `retryable`: the same job may well succeed when tried again. `sticky`: the engine
process is spoilt and must be restarted before the next job.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.comfy.scrub import scrub
from common.events import Failed


@dataclass(frozen=True)
class Failure:
    """What a job's `error` is made of."""

    code: str
    message: str
    hint: str
    retryable: bool = False
    sticky: bool = False


# After one of these every further CUDA call of the process fails too.
# Source: "sticky" errors in NVIDIA's CUDA Runtime API, `cudaError_t`.
_STICKY = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "illegal instruction was encountered",
    "illegal address",
    "hardware stack error",
    "launch timed out",
    "uncorrectable ecc",
    "cuda error: unknown error",
    "cublas_status_execution_failed",
    "cublas_status_internal_error",
)
_HOST_MEMORY = (
    "defaultcpuallocator",
    "cannot allocate memory",
    "not enough memory: you tried to allocate",
    "[errno 12]",
    "pagefile",
    "paging file is too small",
)
_GPU_MEMORY = (
    "out of memory",  # CUDA, HIP, MPS and XPU all say it so
    "allocation on device",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
_NO_SPACE = ("[errno 28]", "no space left", "[errno 122]", "disk quota exceeded")
_CORRUPT_TYPES = ("SafetensorError", "UnpicklingError")
_CORRUPT = (
    "deserializing header",
    "headertoolarge",
    "headertoosmall",
    "invalidheader",
    "metadataincompletebuffer",
    "incomplete metadata",
    "invalid header length",
    "could not detect model type",
    "pytorchstreamreader failed",
    "failed finding central directory",
    "invalid load key",
    "ran out of input",
)
_ABSENT = ("no such file", "not found", "[errno 2]")


def failure(error: Failed, *, hide: Iterable[str] = ()) -> Failure:
    """
    Classify a node's exception.

    The fork's history tells the text only, so the text decides wherever it can.

    Args:
        hide: texts of the request that must not be quoted, such as the prompt.
    """
    text = error.message.lower()
    kind = error.exception_type.rpartition(".")[2]
    said = scrub(error.message, hide=hide) or kind or "no reason given"
    where = f"in {error.node_type}" if error.node_type else "in the engine"
    loads = "Loader" in error.node_type

    if kind == "EditorMissing":  # by our own engine
        return Failure(
            "model_unavailable",
            f"The model cannot be used {where}: {said}",
            "install or fetch what it names; the service's README lists all it needs",
        )
    if _says(text, _STICKY):
        return Failure(
            "internal",
            f"The GPU failed {where}: {said}",
            "the engine is restarted; if it comes back, check the GPU and its driver",
            retryable=True,
            sticky=True,
        )
    if _says(text, _NO_SPACE):
        return Failure(
            "no_space",
            f"The engine's disk is full {where}",
            "make room in the engine's output, temp and models folders",
        )
    if kind == "MemoryError" or _says(text, _HOST_MEMORY):
        return Failure(
            "host_out_of_memory",
            f"The machine's memory was too small {where}: {said}",
            "use a machine with more RAM, or smaller weights such as fp8",
        )
    if "OutOfMemory" in kind or _says(text, _GPU_MEMORY):
        return Failure(
            "out_of_memory",
            f"The GPU's memory was too small {where}: {said}",
            "use fewer frames, a smaller size or smaller weights, or a larger GPU",
        )
    if (
        kind in _CORRUPT_TYPES
        or _says(text, _CORRUPT)
        or (loads and kind == "EOFError")
    ):
        return Failure(
            "corrupt_model",
            f"A model file cannot be read {where}: {said}",
            "check the file's size and checksum, then fetch it again",
        )
    if kind == "WeightsMissing" or (
        loads and (kind == "FileNotFoundError" or _says(text, _ABSENT))
    ):
        return Failure(
            "missing_model",
            f"A model file is missing {where}: {said}",
            "put the file into the engine's models folder",
        )
    return Failure(
        "internal",
        f"The engine failed {where}: {said}",
        "see the engine's log for the full error",
        # An input that was swept away is uploaded anew by the next attempt.
        retryable=kind == "FileNotFoundError",
    )


def _says(text: str, phrases: Iterable[str]) -> bool:
    return any(phrase in text for phrase in phrases)

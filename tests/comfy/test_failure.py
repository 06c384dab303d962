"""A node's exception as a job's error code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.comfy.failure import failure
from common.events import Failed

CUDA_OOM = (
    "CUDA out of memory. Tried to allocate 9.49 GiB. GPU 0 has a total capacity of "
    "23.53 GiB of which 4.21 GiB is free."
)


@pytest.mark.parametrize(
    ("node", "kind", "message", "code"),
    [
        ("KSampler", "torch.OutOfMemoryError", CUDA_OOM, "out_of_memory"),
        (
            "VAEDecode",
            "torch.cuda.OutOfMemoryError",
            "Allocation on device",
            "out_of_memory",
        ),
        ("VAEDecode", "RuntimeError", "CUDA error: out of memory", "out_of_memory"),
        ("KSampler", "RuntimeError", "HIP out of memory. Tried…", "out_of_memory"),
        ("", "", CUDA_OOM, "out_of_memory"),
        ("KSampler", "MemoryError", "", "host_out_of_memory"),
        (
            "UNETLoader",
            "RuntimeError",
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't "
            "allocate memory: you tried to allocate 9 bytes.",
            "host_out_of_memory",
        ),
        (
            "UNETLoader",
            "OSError",
            "[Errno 12] Cannot allocate memory",
            "host_out_of_memory",
        ),
        (
            "UNETLoader",
            "safetensors._safetensors_rust.SafetensorError",
            "Error while deserializing header: header too large",
            "corrupt_model",
        ),
        ("", "", "Error while deserializing header: header too small", "corrupt_model"),
        (
            "VAELoader",
            "_pickle.UnpicklingError",
            "invalid load key, 'v'.",
            "corrupt_model",
        ),
        ("VAELoader", "EOFError", "Ran out of input", "corrupt_model"),
        (
            "UNETLoader",
            "RuntimeError",
            "ERROR: Could not detect model type of: /srv/models/x.safetensors",
            "corrupt_model",
        ),
        (
            "LoraLoaderModelOnly",
            "FileNotFoundError",
            "Model in folder 'loras' with filename 'x.safetensors' not found.",
            "missing_model",
        ),
        (
            "QwenImageEdit",
            "EditorMissing",
            "/srv/models has no svdq-int4.safetensors; not found",
            "model_unavailable",
        ),
        (
            "QwenImageEdit",
            "WeightsMissing",
            "/srv/models has no svdq-int4.safetensors",
            "missing_model",
        ),
        ("SaveVideo", "OSError", "[Errno 28] No space left on device", "no_space"),
        ("SaveVideo", "OSError", "[Errno 122] Disk quota exceeded: 'a'", "no_space"),
        ("KSampler", "RuntimeError", "tensor a (4) must match b (8)", "internal"),
        ("LoadImage", "FileNotFoundError", "[Errno 2] No such file", "internal"),
        ("", "", "", "internal"),
    ],
)
def test_code(node, kind, message, code):
    """The exception's class and words decide the code."""
    found = failure(Failed("3", node, kind, message))

    assert found.code == code
    assert found.message
    assert found.hint
    assert not found.sticky


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors …",
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
    ],
)
def test_sticky(message):
    """After a spoilt CUDA context the engine is restarted and the job tried again."""
    found = failure(Failed("3", "KSampler", "torch.AcceleratorError", message))

    assert (found.code, found.sticky, found.retryable) == ("internal", True, True)


def test_lost_input_is_retryable():
    """An input that vanished from the engine is uploaded again by the next attempt."""
    assert failure(Failed("3", "LoadImage", "FileNotFoundError", "x")).retryable


def test_message():
    """A message names the node and keeps the numbers, without folders or the prompt."""
    error = Failed("3", "KSampler", "RuntimeError", "/srv/canary/a.py: 'a red fox' 48")

    found = failure(error, hide=["a red fox"])

    assert found.message == "The engine failed in KSampler: a.py: '…' 48"


@given(st.text(), st.text(), st.text())
def test_any_exception(node, kind, message):
    """Every exception has a code and short words."""
    found = failure(Failed("1", node, kind, message))

    assert found.code
    assert len(found.hint) < 200

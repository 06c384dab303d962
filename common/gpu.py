"""The machine's GPUs as NVIDIA's own library reports them; none without a driver."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One card, now."""

    name: str
    vram_used_bytes: int
    vram_total_bytes: int
    utilization: float | None  #: 0…1
    temperature_c: int | None


def gpus() -> list[Gpu]:
    """Return the cards that this process may see; takes some milliseconds."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_read(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _read(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    utilization = temperature = None
    with suppress(pynvml.NVMLError):  # some cards and slices do not tell
        utilization = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    with suppress(pynvml.NVMLError):
        temperature = pynvml.nvmlDeviceGetTemperature(handle, 0)
    name = pynvml.nvmlDeviceGetName(handle)
    return Gpu(str(name), memory.used, memory.total, utilization, temperature)

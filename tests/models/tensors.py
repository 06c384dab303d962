"""Small safetensors files, and what the manifest would say of them."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path


def tensors(seed: int = 0, size: int = 4096, count: int = 2) -> bytes:
    """Return a sound safetensors file with about `size` bytes of tensors."""
    each = size // count
    header = {"__metadata__": {"seed": str(seed)}}
    for n in range(count):
        header[f"t{n}"] = {
            "dtype": "U8",
            "shape": [each],
            "data_offsets": [n * each, (n + 1) * each],
        }
    text = json.dumps(header).encode()
    body = hashlib.shake_128(str(seed).encode()).digest(each * count)
    return len(text).to_bytes(8, "little") + text + body


@dataclass(frozen=True)
class File:
    """What the store asks of the manifest's `WeightFile`."""

    name: str
    folder: str = "vae"
    size: int | None = None
    sha256: str | None = None

    @property
    def key(self) -> str:
        if self.sha256:
            return self.sha256
        text = f"{self.folder}/{self.name}".encode()
        return f"unverified-{hashlib.sha256(text).hexdigest()[:32]}"


@dataclass(frozen=True)
class Got:
    """What a fetch gives back."""

    path: Path
    size: int
    sha256: str
    sources: dict = field(default_factory=lambda: {"test://": 1})


def file_of(data: bytes, name: str = "x.safetensors", folder: str = "vae") -> File:
    return File(name, folder, len(data), hashlib.sha256(data).hexdigest())


def fetched(layer, file: File, data: bytes) -> Got:
    """Put bytes into staging, as a fetch does."""
    path = layer.staging(file.key) / "data"
    path.write_bytes(data)
    (path.parent / "journal").write_bytes(b"")
    return Got(path, len(data), hashlib.sha256(data).hexdigest())


def placed(layer, file: File, data: bytes) -> Path:
    """Put a file where ComfyUI's user puts it by hand."""
    path = layer.view(file.folder, file.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tree(root: Path) -> list[str]:
    """Return the files below a root, but for its own record."""
    found = [os.path.relpath(p, root) for p in root.rglob("*") if not p.is_dir()]
    return sorted(name for name in found if name != "layer.json")

"""A publisher on loopback, a manifest of what it has, ensurers that share a root."""

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.models import ModelEnsurer
from common.settings import Settings
from tests.models.tensors import tensors
from tests.range_server import RangeServer


@dataclass
class Shelf:
    """
    Files that a server has, and `models.toml` that says so.

    `fault` may be set to a rule of the range server at any time.
    """

    folder: Path
    server: RangeServer
    texts: list = field(default_factory=list)
    names: list = field(default_factory=list)

    def put(self, name, size=4096, *, seed=None, where="vae", pinned=True, sources=()):
        """Publish a file, and return its bytes."""
        data = tensors(len(self.names) if seed is None else seed, size)
        (self.server.folder / name).write_bytes(data)
        found = hashlib.sha256(data).hexdigest()
        facts = f'size = {len(data)}\nsha256 = "{found}"' if pinned else ""
        places = [*sources, f"{self.server.url}/{name}"]
        text = f'[[file]]\nname = "{name}"\nfolder = "{where}"\n{facts}\n'
        text += "unverified = true\n" if not pinned else ""
        text += "sources = [" + ", ".join(f'"{one}"' for one in places) + "]\n"
        self.texts.append(text)
        self.names.append(name)
        return data

    def write(self):
        """Write the manifest: one model of all files."""
        files = ", ".join(f'"{name}"' for name in self.names)
        model = '[models."m@1"]\ndefault = "v"\n[models."m@1".variants.v]\n'
        text = "schema = 1\n" + "\n".join(self.texts) + f"{model}files = [{files}]\n"
        path = self.folder / "models.toml"
        path.write_text(text)
        return path

    def settings(self, root="root", **more):
        """Return settings for a root below our folder."""
        return Settings(
            models=self.folder / root,
            models_manifest=self.write(),
            models_margin_gb=0,
            hf_token=None,
            **more,
        )

    def ensurer(self, root="root", **more):
        """Return an ensurer for a root below our folder."""
        return ModelEnsurer.from_config(self.settings(root, **more))


@contextmanager
def shelf(folder, fault=None, rate=None):
    """Serve a folder of weights."""
    published = folder / "published"
    published.mkdir(parents=True)
    with RangeServer(published, fault, rate) as server:
        yield Shelf(folder, server)

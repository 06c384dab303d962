"""
A Hugging Face cache: what a platform, or another program, fetched before us.

RunPod puts an endpoint's cached model into /runpod-volume/huggingface-cache/hub. Large
files are found by their sha256, which is their name among the blobs, whatever the
commit; others through the commit that the manifest names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.models.sources.address import NotThere
from common.source_urls import HubUrl


@dataclass(frozen=True)
class HubCache:
    """One repository in one cache. Source: huggingface_hub's guide to its cache."""

    source: str  #: the manifest's URL
    url: HubUrl
    hub: Path  #: the folder with the models--ORG--NAME folders
    sha256: str | None

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"cache of {self.source}"

    def resolve(self) -> Path:
        """
        Return the file.

        Raises:
            NotThere: the cache does not have it.
        """
        folder = self.hub / f"models--{self.url.repo.replace('/', '--')}"
        try:
            for path in self._candidates(folder):
                if path.is_file():
                    return path.resolve()
        except OSError:  # a folder on the way that is not ours to enter
            pass
        raise NotThere(f"{self.label}: {folder.name} does not have it")

    def _candidates(self, folder: Path) -> list[Path]:
        found = [] if self.sha256 is None else [folder / "blobs" / self.sha256]
        commit = self.url.revision
        if not self.url.pinned:
            try:
                commit = (folder / "refs" / commit).read_text("utf-8").strip()
            except FileNotFoundError:
                return found
        return [*found, folder / "snapshots" / commit / self.url.path]

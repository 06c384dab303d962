"""A file of this machine, such as on a volume that is mounted beside ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.models.sources.address import NotThere
from common.source_urls import LocalUrl


@dataclass(frozen=True)
class LocalSource:
    """A path, absolute or below a folder that is configured."""

    label: str
    url: LocalUrl
    root: Path | None

    def resolve(self) -> Path:
        """
        Return the file.

        Raises:
            NotThere: it is not there, or no folder is configured for a relative path.
        """
        path = Path(self.url.path)
        if not path.is_absolute():
            if self.root is None:
                raise NotThere(
                    f"{self.label} is below no folder",
                    "WAN_MODELS_LOCAL names the folder of local:// paths",
                )
            path = self.root / path
        try:
            there = path.is_file()
        except OSError:  # a folder on the way that is not ours to enter
            there = False
        if not there:
            raise NotThere(f"{self.label} is not there")
        return path

"""The manifest, asked by model and by what a service loads."""

from __future__ import annotations

from common.manifest import Manifest
from common.manifest_schema import WeightFile
from common.models.errors import Missing
from common.models.needs import of_workflow, whole_models
from common.service import Service
from common.workflow import Workflow


class Catalogue:
    """Knows which files make a model, a workflow's weights or a service's."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.variants: dict[str, str] = {}  #: meant where none is named, by model

    def files_of(
        self, model: str, variant: str | None = None
    ) -> tuple[WeightFile, ...]:
        """Return a model's files; raises Missing with near names."""
        return self.manifest.files_of(model, variant or self.variants.get(model))

    def loaded_by(self, workflow: Workflow) -> tuple[WeightFile, ...]:
        """Return what a workflow loads; what the manifest does not know is left out."""
        found: dict[WeightFile, None] = {}
        for need in of_workflow(workflow):
            try:
                found.setdefault(self.manifest.file(need.name, need.folder or None))
            except Missing:
                continue
        for model in whole_models(workflow):
            found |= dict.fromkeys(self.files_of(model))
        return tuple(found)

    def needed_by(
        self, service: Service, *, variants: bool = False
    ) -> tuple[WeightFile, ...]:
        """Return what a service's main workflow loads; with variants, every one's."""
        found: dict[WeightFile, None] = {}
        for variant, workflow in service.workflows.items():
            if variant is None or variants:
                found |= dict.fromkeys(self.loaded_by(workflow))
        return tuple(found)

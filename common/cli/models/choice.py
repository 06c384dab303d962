"""Which weights a command is about: models, services or files, as they are typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.cli.screen import WRONG_USE, Stop, say
from common.cli.services import service_of

if TYPE_CHECKING:
    from common.cli.models.asked import Asked
    from common.manifest_schema import WeightFile
    from common.models.ensurer import ModelEnsurer

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID[:VARIANT]|FILE",
        help="Models such as t2v-A14B@2.2.0:fp8, or single files of the manifest.",
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", "--file", metavar="ID|FILE", help="The same, as an option."),
]
Services = Annotated[
    list[str] | None,
    typer.Option("--service", metavar="SERVICE", help="What a service loads."),
]
Everything = Annotated[bool, typer.Option("--all", help="Every model.")]
WithVariants = Annotated[
    bool,
    typer.Option(
        "--with-variants", help="All variants; else each model's default one."
    ),
]


@dataclass(frozen=True)
class Group:
    """Files that were asked for together."""

    kind: Literal["model", "service", "file"]
    name: str
    variant: str | None
    files: tuple[WeightFile, ...]


@dataclass(frozen=True)
class Choice:
    """What was typed."""

    names: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    everything: bool = False
    variants: bool = False

    @classmethod
    def of(
        cls,
        names: Iterable[str] | None,
        only: Iterable[str] | None,
        services: Iterable[str] | None,
        everything: bool,
        variants: bool,
    ) -> Choice:
        """Return it from a command's options."""
        both = (*(names or ()), *(only or ()))
        return cls(both, tuple(services or ()), everything, variants)

    def __bool__(self) -> bool:
        return bool(self.names or self.services or self.everything)

    @property
    def words(self) -> tuple[str, ...]:
        """What to type for the same choice."""
        services = (word for name in self.services for word in ("--service", name))
        everything = ("--all",) if self.everything else ()
        variants = ("--with-variants",) if self.variants else ()
        return (*self.names, *services, *everything, *variants)

    def groups(self, ensurer: ModelEnsurer) -> list[Group]:
        """
        Return what is meant.

        Raises:
            Missing: no model, variant or file has the name; the hint has near ones.
            Stop: no such service, or nothing was named.
        """
        if not self:
            raise Stop(
                "which weights?",
                "name a model or a file, or use --service or --all;"
                " 'wan models status' lists the models",
                WRONG_USE,
            )
        manifest = ensurer.manifest
        found = [one for name in self.names for one in self._named(ensurer, name)]
        for name in self.services:
            found.append(self._service(ensurer, name))
        if self.everything:
            for id_ in manifest.models:
                found += self._model(ensurer, id_, None)
        return found

    def _service(self, ensurer: ModelEnsurer, name: str) -> Group:
        from common.models.validate import checks

        service = service_of(name)
        for one in checks(ensurer.manifest, [service]):
            if one.problem is not None:  # it may lie there all the same
                say(f"{service.name}: {one.problem}")
        files = ensurer.needed_by(service, variants=self.variants)
        return Group("service", service.name, None, files)

    def _named(self, ensurer: ModelEnsurer, name: str) -> Iterator[Group]:
        from common.manifest import near
        from common.models.errors import Missing

        manifest = ensurer.manifest
        typed, _, variant = name.partition(":")
        id_ = manifest.full_id(typed)
        if id_ in manifest.models:
            yield from self._model(ensurer, id_, variant or None)
            return
        short = name.rpartition("/")[2]
        if not any(short == file.name for file in manifest.files):
            files = (file.name for file in manifest.files)
            there = dict.fromkeys((*manifest.models, *files))
            message = f"{manifest.name} has no model or file {name!r}"
            raise Missing(message, near(typed, there, manifest.models))
        yield Group("file", name, None, (manifest.file(name),))

    def _model(
        self, ensurer: ModelEnsurer, id_: str, variant: str | None
    ) -> Iterator[Group]:
        model = ensurer.manifest.model(id_)
        every = self.variants and variant is None
        usual = ensurer.variants.get(id_, model.default)
        for name in model.variants if every else (variant or usual,):
            yield Group("model", id_, name, model.variant(name).files)


def again(verb: str, choice: Choice, asked: Asked) -> str:
    """Return, in quotes, what to type to do something else about the same files."""
    words = ("wan", "models", verb, *choice.words, *asked.words)
    return f"'{shlex.join(words)}'"


def files_of(groups: Iterable[Group]) -> tuple[WeightFile, ...]:
    """Return the files of groups, each once, in their order."""
    return tuple(dict.fromkeys(file for group in groups for file in group.files))

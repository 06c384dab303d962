"""
The manifest: every weight file once, and the models that are made of them.

Pure, but for the reading of one file. What is wrong is said with file, line and key.

    [[file]]                        one file, by ComfyUI's folder and its name there
    [[tree]]                        the small files of a diffusers repository
    [models."ti2v-5B@2.2.0"]        files that all of its variants share
    [models."ti2v-5B@2.2.0".variants.fp16]

A variant names its files as "name", as "folder/name", or as "folder/" for everything in
and below a folder.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from common.manifest_schema import SCHEMA, Document, ModelTable, WeightFile
from common.models.errors import BadManifest, Missing
from common.toml_lines import Place, line_of

__all__ = ["Manifest", "Model", "Variant", "WeightFile"]


@dataclass(frozen=True)
class Variant:
    """One choice of precision or extent."""

    name: str
    files: tuple[WeightFile, ...]

    @property
    def size(self) -> int:
        """Bytes of its different contents, as far as they are known."""
        return sum({file.key: file.size or 0 for file in self.files}.values())


@dataclass(frozen=True)
class Model:
    """Weights that are loaded together."""

    id: str  #: "t2v-A14B@2.2.0"
    default: str
    variants: Mapping[str, Variant]

    @property
    def version(self) -> str:
        """What follows the @."""
        return self.id.partition("@")[2]

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """The files of all variants, each once."""
        every = (file for one in self.variants.values() for file in one.files)
        return tuple(dict.fromkeys(every))

    def variant(self, name: str | None = None) -> Variant:
        """
        Return one variant, the default one if none is named.

        Raises:
            Missing: naming those that there are.
        """
        name = name or self.default
        if name not in self.variants:
            there = ", ".join(self.variants)
            raise Missing(f"{self.id} has no variant {name!r}", f"there are {there}")
        return self.variants[name]


@dataclass(frozen=True)
class Manifest:
    """All files and models that we know."""

    name: str  #: of the file that was read, for messages
    files: tuple[WeightFile, ...]
    models: Mapping[str, Model]
    digest: str  #: sha256 of the text, hex

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """
        Read `models.toml`.

        Raises:
            BadManifest: it cannot be read, or naming file, line and key.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadManifest(
                f"{path}: the manifest cannot be read: {error}",
                "WAN_MODELS_MANIFEST names another one",
            ) from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, name: str = "models.toml") -> Manifest:
        """
        Read a manifest's text; `name` is for the messages.

        Raises:
            BadManifest: naming file, line and key.
        """
        return _Reader(text, name).manifest()

    def file(self, name: str, folder: str | None = None) -> WeightFile:
        """
        Return a file by its name, alone or as "folder/name".

        Raises:
            Missing: none has it, or several folders have; the hint lists near names.
        """
        if folder is None and "/" in name:
            folder, _, name = name.rpartition("/")
        found = [
            file for file in self._named.get(name, ()) if folder in (None, file.folder)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            places = ", ".join(file.path for file in found)
            raise Missing(f"{name} is in several folders", f"say which: {places}")
        wanted = name if folder is None else f"{folder}/{name}"
        raise Missing(
            f"{self.name} has no {wanted}", near(name, self._named, self.models)
        )

    def model(self, id_: str) -> Model:
        """
        Return a model by its id, such as "t2v-A14B@2.2.0".

        Raises:
            Missing: the hint lists near ids.
        """
        if id_ not in self.models:
            hint = near(id_, self.models, self.models)
            raise Missing(f"{self.name} has no model {id_!r}", hint)
        return self.models[id_]

    def full_id(self, typed: str) -> str:
        """Return the id that is meant; the version may be left out if there is one."""
        versions = [id_ for id_ in self.models if id_.startswith(f"{typed}@")]
        return versions[0] if len(versions) == 1 else typed

    def files_of(self, id_: str, variant: str | None = None) -> tuple[WeightFile, ...]:
        """
        Return the files of a model's variant, the default one if none is named.

        Raises:
            Missing: no such model or variant.
        """
        return self.model(id_).variant(variant).files

    @cached_property
    def _named(self) -> dict[str, list[WeightFile]]:
        named: dict[str, list[WeightFile]] = {}
        for file in self.files:
            named.setdefault(file.name, []).append(file)
        return named


def near(name: str, there: Collection[str], models: Collection[str]) -> str:
    """
    Return a hint: names that are nearly the one that is not there, or contain it.

    Else the models, since files are too many to list.
    """
    found = get_close_matches(name, there, n=3, cutoff=0.8)
    found = found or [one for one in there if name.lower() in one.lower()][:3]
    if found:
        return f"did you mean {' or '.join(found)}?"
    return f"there are the models {', '.join(sorted(models))}"


class _Reader:
    """A text that is being made a manifest."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name

    def manifest(self) -> Manifest:
        document = self._document()
        files = tuple(self._files(document))
        plain = Manifest(self._name, files, {}, "")
        models = {
            id_: self._model(plain, id_, table)
            for id_, table in document.models.items()
        }
        digest = hashlib.sha256(self._text.encode()).hexdigest()
        return Manifest(self._name, files, models, digest)

    def _document(self) -> Document:
        try:
            raw = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            raise BadManifest(f"{self._name}: {error}") from error
        if raw.get("schema") != SCHEMA:
            words = f"is {raw.get('schema')!r}, and this release reads {SCHEMA}"
            raise self._bad(("schema",), words)
        try:
            return Document.model_validate(raw)
        except ValidationError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: ValidationError) -> BadManifest:
        """Say the first finding; sources may hold secrets, so no value is repeated."""
        found = error.errors(include_url=False, include_input=True)
        first = found[0]
        place: Place = tuple(part for part in first["loc"] if part != "[key]")
        words = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            words = "there is no such key"
        elif first["type"] == "missing":
            words = "is missing"
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return self._bad(place, f"{words[:1].lower()}{words[1:]}{more}", first["input"])

    def _bad(
        self, place: Place, words: str, value: object = None, hint: str | None = None
    ) -> BadManifest:
        line = line_of(self._text, place, value)
        key = ".".join(str(part) for part in place if isinstance(part, str))
        return BadManifest(f"{self._name}:{line}: {key}: {words}", hint)

    def _files(self, document: Document) -> Iterator[WeightFile]:
        """Yield every file; each place once, and one size for one content."""
        places: dict[str, Place] = {}
        sizes: dict[str, int | None] = {}
        for place, file in document.all_files():
            # Some volumes do not tell capitals from small letters.
            if (same := file.path.casefold()) in places:
                first = line_of(self._text, places[same])
                words = f"{file.path} is here twice: line {first} has it too"
                raise self._bad((*place, "name"), words, file.name)
            places[same] = place
            if sizes.setdefault(file.key, file.size) != file.size:
                words = "another file has the same sha256 and another size"
                raise self._bad((*place, "size"), words)
            yield file

    def _model(self, plain: Manifest, id_: str, table: ModelTable) -> Model:
        at = ("models", id_)
        if table.default not in table.variants:
            there = ", ".join(table.variants)
            words = f"{table.default!r} is no variant of it: there are {there}"
            raise self._bad((*at, "default"), words)
        shared = self._named(plain, table.files, (*at, "files"))
        variants = {}
        for name, variant in table.variants.items():
            where = (*at, "variants", name, "files")
            files = dict.fromkeys(shared + self._named(plain, variant.files, where))
            variants[name] = Variant(name, tuple(files))
        return Model(id_, table.default, variants)

    def _named(
        self, plain: Manifest, references: tuple[str, ...], place: Place
    ) -> list[WeightFile]:
        """Return the files that a variant names."""
        found: list[WeightFile] = []
        for number, name in enumerate(references):
            try:
                found += self._below(plain, name) or [plain.file(name)]
            except Missing as error:
                words = error.message.removeprefix(f"{self._name} ")
                raise self._bad((*place, number), words, name, error.hint) from None
        return found

    @staticmethod
    def _below(plain: Manifest, name: str) -> list[WeightFile]:
        """Return the files in and below "folder/"; none for a file's name."""
        if not name.endswith("/"):
            return []
        return [file for file in plain.files if file.path.startswith(name)]

"""The manifest's tables as they are written: strict, frozen, and each value checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from common.source_urls import HttpUrl, HubUrl, SourceUrl, parse
from common.toml_lines import Place

#: Raised when an older release would misread a newer text.
SCHEMA = 1

#: Folders of ComfyUI's `models` that hold weights. Source: folder_paths.py of ComfyUI.
MODEL_FOLDERS = frozenset(
    {
        "audio_encoders", "checkpoints", "classifiers", "clip_vision", "controlnet",
        "diffusers", "diffusion_models", "embeddings", "gligen", "hypernetworks",
        "loras", "model_patches", "photomaker", "style_models", "text_encoders",
        "upscale_models", "vae", "vae_approx",
    }
)  # fmt: skip
#: The one whose models are folders with folders in them.
DIFFUSERS = "diffusers"
WEIGHTS = ".safetensors"  #: the others that ComfyUI takes run code when they are loaded
#: What a diffusers repository has beside its weights.
BESIDE = (".json", ".txt", ".jinja")

_NAME = re.compile(r"[^\x00-\x1f\x7f<>:\"/\\|?*]{1,200}")
# Windows' devices, whatever follows the dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_ID = re.compile(r"[A-Za-z0-9][\w.-]*@[A-Za-z0-9][\w.-]*")
_VARIANT = re.compile(r"[A-Za-z0-9][\w.-]*")


def safe_name(name: str) -> str:
    """
    Return a file's name if every system takes it for one, below any folder.

    Raises:
        ValueError: it holds a separator, is reserved, or ends in a dot or a space.
    """
    if "/" in name or "\\" in name:
        raise ValueError("is a path; the folder has a key of its own")
    if _NAME.fullmatch(name) is None:
        raise ValueError("is empty, too long, or holds a character such as : or ?")
    if name.strip(". ") == "" or name[-1] in ". " or name[0] == " ":
        raise ValueError("begins or ends in what some systems drop")
    if _DEVICE.fullmatch(name):
        raise ValueError("is the name of a device on Windows")
    return name


def _folder(folder: str) -> str:
    first, *below = folder.split("/")
    if first not in MODEL_FOLDERS:
        there = ", ".join(sorted(MODEL_FOLDERS))
        raise ValueError(f"is none of ComfyUI's folders, which are {there}")
    if below and first != DIFFUSERS:
        raise ValueError("is a folder in a folder, which only diffusers takes")
    for part in below:
        safe_name(part)
    return folder


def _source(url: str) -> str:
    parse(url)
    return url


def _id(text: str) -> str:
    if _ID.fullmatch(text) is None:
        raise ValueError("is not name@version, such as t2v-A14B@2.2.0")
    return text


def _variant(text: str) -> str:
    if _VARIANT.fullmatch(text) is None:
        raise ValueError("is no variant's name: use letters, digits, dots and hyphens")
    return text


Sources = Annotated[
    tuple[Annotated[str, AfterValidator(_source)], ...],
    Field(strict=False, min_length=1),
]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Folder = Annotated[str, AfterValidator(_folder)]
ModelId = Annotated[str, AfterValidator(_id)]
VariantName = Annotated[str, AfterValidator(_variant)]


def _sha256(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        raise ValueError("is no sha256: 64 hex digits, small letters")
    return text


class Table(BaseModel):
    """Base of the tables: no key that we do not know, no value of another type."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class WeightFile(Table):
    """One file: where it goes, what it is, and where it comes from."""

    name: Annotated[str, AfterValidator(safe_name)]
    folder: Folder  #: below ComfyUI's `models`
    size: Annotated[int, Field(gt=0)] | None = None  #: bytes
    sha256: Annotated[str, AfterValidator(_sha256)] | None = None
    licence: str | None = None  #: SPDX identifier, lower case
    unverified: bool = False  #: what is fetched first is recorded, and holds after
    sources: Sources  #: tried in this order

    @property
    def path(self) -> str:
        """Its place below `models`, such as "vae/wan_2.1_vae.safetensors"."""
        return f"{self.folder}/{self.name}"

    @property
    def key(self) -> str:
        """What its bytes are filed under before and after they are there."""
        if self.sha256 is not None:
            return self.sha256
        return f"unverified-{hashlib.sha256(self.path.encode()).hexdigest()[:32]}"

    @property
    def is_safetensors(self) -> bool:
        """Whether it holds weights; the rest are small files beside them."""
        return self.name.endswith(WEIGHTS)

    @model_validator(mode="after")
    def _kind(self) -> Self:
        beside = self.folder.startswith(f"{DIFFUSERS}/") and self.name.endswith(BESIDE)
        if not (self.is_safetensors or beside):
            raise ValueError(f"{self.name} is no {WEIGHTS} file, and others run code")
        return self

    @model_validator(mode="after")
    def _identity(self) -> Self:
        if self.unverified and self.sha256 is not None:
            raise ValueError("has a sha256, so it is not unverified")
        if not self.unverified and None in (self.size, self.sha256):
            raise ValueError("needs size and sha256, or unverified = true")
        return self

    @model_validator(mode="after")
    def _fixed(self) -> Self:
        for number, source in enumerate(self.sources):
            if problem := self._loose(parse(source), first=number == 0):
                raise ValueError(problem)
        return self

    def _loose(self, source: SourceUrl, *, first: bool) -> str | None:
        """Return why a source does not suit what is known of the file."""
        # A branch may lose the file one day; as a last resort it does no harm.
        fixed = self.unverified or not first
        if isinstance(source, HubUrl) and not (fixed or source.pinned):
            return f"{source.revision} is no commit (40 hex digits) of {source.repo}"
        if isinstance(source, HttpUrl) and self.unverified and not source.private:
            return "plain http:// needs a sha256: somebody could change the answer"
        return None


class Tree(Table):
    """Several unverified files of one folder of a repository, such as its configs."""

    folder: Folder
    licence: str | None = None
    files: Annotated[Names, Field(min_length=1)]  #: paths below the folder
    sources: Annotated[Names, Field(min_length=1)]  #: of the folder; paths are appended

    def expanded(self) -> Iterator[WeightFile]:
        """Yield each file."""
        for path in self.files:
            below, _, name = path.rpartition("/")
            yield WeightFile(
                name=name,
                folder=f"{self.folder}/{below}".rstrip("/"),
                licence=self.licence,
                unverified=True,
                sources=tuple(f"{source}/{path}" for source in self.sources),
            )

    @model_validator(mode="after")
    def _each(self) -> Self:
        try:
            list(self.expanded())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"][:1])
            words = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"{where}: {words}".removeprefix(": ")) from None
        return self


class VariantTable(Table):
    """A variant as it is written."""

    files: Names


class ModelTable(Table):
    """A model as it is written."""

    default: str
    files: Names = ()  #: of all variants
    variants: Annotated[dict[VariantName, VariantTable], Field(min_length=1)]


class Document(Table):
    """The whole text."""

    schema_: Literal[1] = Field(alias="schema")
    file: Annotated[tuple[WeightFile, ...], Field(strict=False)] = ()
    tree: Annotated[tuple[Tree, ...], Field(strict=False)] = ()
    models: dict[ModelId, ModelTable] = Field(default_factory=dict)

    def all_files(self) -> Iterator[tuple[Place, WeightFile]]:
        """Yield every file with the place of the table that says it."""
        for number, file in enumerate(self.file):
            yield ("file", number), file
        for number, tree in enumerate(self.tree):
            for file in tree.expanded():
                yield ("tree", number), file

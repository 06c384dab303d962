"""What every command of `wan models` takes: where to look, and how to answer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.cli.screen import Stop, put

if TYPE_CHECKING:
    from common.models.ensurer import ModelEnsurer
    from common.models.errors import ModelsError
    from common.settings import Settings

EXIT_CODES = (
    "Exit codes: 0 ready or done, 1 something else failed, 2 wrong options, settings or"
    " manifest, 3 not all is there, 4 corrupt, 5 no space, 6 no source gave it, 7 a"
    " token or an accepted licence is needed, 8 another process holds it and does not"
    " end, 9 the root takes no writes, 130 interrupted (what came is kept)."
)

Root = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where weights are put [WAN_MODELS]."),
]
Layer = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FOLDER",
        help="Another root that is only read; lowest first [WAN_MODELS_LAYERS].",
    ),
]
ManifestFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Another models.toml [WAN_MODELS_MANIFEST]."),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Write one JSON object to stdout, and progress as JSON lines."
    ),
]


@dataclass(frozen=True)
class Asked:
    """What was said on the command line, before the command's name or after it."""

    root: Path | None = None
    layers: tuple[Path, ...] = ()
    manifest: Path | None = None
    as_json: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """What to type to look at the same places."""
        root = () if self.root is None else ("--root", str(self.root))
        layers = (word for one in self.layers for word in ("--layer", str(one)))
        manifest = () if self.manifest is None else ("--manifest", str(self.manifest))
        return (*root, *layers, *manifest)

    @property
    def settings(self) -> Settings:
        """The environment's, with what was said over it."""
        from common.settings import Settings

        return Settings.read(
            models=self.root,
            models_layers=self.layers or None,
            models_manifest=self.manifest,
        )

    def ensurer(self, bake_s: int | None = None, *, make: bool = True) -> ModelEnsurer:
        """Return what knows the weights; as `ModelEnsurer.from_config`."""
        from common.models.ensurer import ModelEnsurer

        return ModelEnsurer.from_config(self.settings, bake_s=bake_s, make=make)

    def look(self) -> ModelEnsurer:
        """Return what knows the weights, for a command that only looks."""
        return self.ensurer(make=False)

    def answer(self, found: Mapping[str, object]) -> None:
        """Write the object of `--json`."""
        put(json.dumps(found, ensure_ascii=False))


def over(first: object, then: Asked) -> Asked:
    """Return what was said at both places; what comes later counts."""
    if not isinstance(first, Asked):
        return then
    return Asked(
        then.root or first.root,
        then.layers or first.layers,
        then.manifest or first.manifest,
        then.as_json or first.as_json,
    )


def everywhere(
    ctx: typer.Context,
    root: Root = None,
    layer: Layer = None,
    manifest: ManifestFile = None,
    as_json: AsJson = False,
) -> None:
    """Look at the weights of the services; fetch, check, share and remove them."""
    ctx.obj = Asked(root, tuple(layer or ()), manifest, as_json)


def command(run: Callable[..., None]) -> Callable[..., None]:
    """Return `run(asked, …)` as a command that takes the options of them all."""
    _, *own = inspect.signature(run, eval_str=True).parameters.values()
    shared = inspect.signature(everywhere, eval_str=True).parameters.values()

    def call(**values: Any) -> None:
        ctx, layers = values.pop("ctx"), values.pop("layer")
        here = Asked(
            values.pop("root"),
            tuple(layers or ()),
            values.pop("manifest"),
            values.pop("as_json"),
        )
        asked = over(ctx.obj, here)
        with explained(as_json=asked.as_json):
            run(asked, **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [one.replace(kind=keyword) for one in (*own, *shared)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__name__, call.__doc__ = run.__name__, run.__doc__
    return call


@contextmanager
def explained(*, as_json: bool) -> Iterator[None]:
    """Say what went wrong, with its exit code, and as JSON where that is asked for."""
    from common.models.errors import BadManifest, ModelsError
    from common.settings import BadSettings

    try:
        yield
    except (ModelsError, BadSettings) as error:
        # A setting that cannot be used is as bad as a manifest.
        known = error if isinstance(error, ModelsError) else BadManifest(str(error))
        if as_json:
            found = {"error": said(known), "exit_code": known.exit_code}
            put(json.dumps(found, ensure_ascii=False))
        raise Stop(known.message, known.hint, known.exit_code) from None
    except OSError as error:  # a folder that is named, and cannot be read or written
        if error.filename is None:
            raise
        raise Stop(f"{error.filename}: {error.strerror}") from None


def said(error: ModelsError) -> dict[str, str | None]:
    """Return an error as JSON."""
    return {"code": error.code, "message": error.message, "hint": error.hint}

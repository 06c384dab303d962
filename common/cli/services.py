"""wan services: what there is; and finding a service by what a person typed."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from common.cli.address import Json
from common.cli.screen import WRONG_USE, Stop, draw, put

if TYPE_CHECKING:
    from common.service import Service


def services(as_json: Json = False) -> None:
    """List the services: name, title, kind and what each takes."""
    from common.service import folders

    found = [service_of(folder.name) for folder in folders()]
    if as_json:
        for one in found:
            put(json.dumps(row(one), ensure_ascii=False))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    # The name is what is typed elsewhere; the others may go on in the next line.
    table.add_column("name", no_wrap=True, min_width=max(len(s.name) for s in found))
    for title in ("title", "makes", "from"):
        table.add_column(title, overflow="fold")
    for one in found:
        facts = row(one)
        table.add_row(
            facts["name"], facts["title"], facts["kind"], ", ".join(facts["takes"])
        )
    draw(table)


def row(service: Service) -> dict[str, Any]:
    """Return what the list says of a service."""
    media = {
        name: field.is_required()
        for name, field in service.request.model_fields.items()
        if name in service.request.media_fields()
    }
    takes = ["prompt", *(n if needed else f"{n}?" for n, needed in media.items())]
    return {
        "name": service.name,
        "title": service.title,
        "kind": service.kind,
        "takes": takes,
    }


@cache
def service_of(name: str) -> Service:
    """
    Return a service by its name or a unique prefix of it.

    Raises:
        Stop: no service fits, several do, or its wrapper and workflow disagree.
    """
    from common.service import NoSuchService, find, load
    from common.workflow import WorkflowMismatch

    try:
        return load(find(name))
    except NoSuchService as error:
        raise Stop(str(error), code=WRONG_USE) from None
    except WorkflowMismatch as error:
        raise Stop(
            str(error),
            "export workflow_api.json again, with the titles that the wrapper names",
            WRONG_USE,
        ) from None

"""What a service takes on cards of different sizes, for its README. Pure."""

from __future__ import annotations

from common.estimate import smaller
from common.service import Service

CARDS_GIB = (8, 12, 16, 24, 32, 48, 80)  #: as cards are sold


def memory_table(service: Service) -> str:
    """Return one row for each card: whether the defaults fit, or what does."""
    memory = service.memory
    assert memory is not None
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in service.request.model_fields.items()
        if not field.is_required()
    }
    needed = memory.of(defaults)
    assert needed is not None
    schema = service.request.model_json_schema()
    rows = ["| card | fits whole |", "|---|---|"]
    for gib in CARDS_GIB:
        card_gb = gib * 2**30 / 1e9
        advice = smaller(memory, schema, defaults, card_gb, {})
        what = ", or ".join(one.text for one in advice) or "not even the weights"
        fits = f"the defaults, which take {needed:g} GB"
        rows.append(f"| {gib} GB | {fits if needed <= card_gb else what} |")
        if needed <= card_gb:
            break
    return "\n".join(rows)

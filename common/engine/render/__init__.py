"""Paint films: from a text, or from a picture."""

from __future__ import annotations

from common.engine.render.film import Film
from common.engine.render.picture import fill

__all__ = ["Film", "fill"]

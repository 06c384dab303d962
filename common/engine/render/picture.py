"""Film from a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from common.engine.values import Pixels


def fill(
    picture: Image.Image,
    width: int,
    height: int,
    method: Image.Resampling = Image.Resampling.LANCZOS,
) -> Pixels:
    """Scale and crop a picture so that it fills a size."""
    return np.asarray(ImageOps.fit(picture, (width, height), method))

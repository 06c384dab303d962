"""The size of an edited picture."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.aspect import AREA, GRID, LEAST, MOST, fit
from common.request import Refused

SIDE = st.integers(16, 8192)


@given(SIDE, SIDE)
def test_the_shape_is_kept_at_about_a_megapixel(width, height):
    """In multiples of 16, within the limits; or the picture is refused."""
    try:
        made = fit(width, height)
    except Refused:
        assert max(width, height) / min(width, height) > MOST / (LEAST + GRID)
        return
    assert all(side % GRID == 0 and LEAST <= side <= MOST for side in made)
    assert made[0] * made[1] < AREA * 1.07
    # Each side is off by half a cell at most.
    shape = width / height
    assert (made[0] - 8) / (made[1] + 8) <= shape <= (made[0] + 8) / (made[1] - 8)


@pytest.mark.parametrize(
    ("picture", "given_", "made"),
    [
        ((1024, 1024), {}, (1024, 1024)),
        ((100, 100), {}, (1024, 1024)),
        ((4000, 3000), {}, (1184, 880)),
        ((8000, 1000), {}, (2048, 256)),
        ((300, 600), {"given_width": 512}, (512, 1024)),
        ((300, 600), {"given_height": 512}, (256, 512)),
        ((300, 600), {"given_width": 640, "given_height": 320}, (640, 320)),
    ],
    ids=["square", "small", "photo", "8 to 1", "by width", "by height", "as said"],
)
def test_sizes(picture, given_, made):
    """A side that is given stays."""
    assert fit(*picture, **given_) == made


@pytest.mark.parametrize(
    "given_", [{"given_width": 2048}, {"given_height": 256}], ids=["large", "small"]
)
def test_a_side_that_does_not_fit_is_refused(given_):
    """With what it would have been."""
    with pytest.raises(Refused, match="would become"):
        fit(300, 600, **given_)

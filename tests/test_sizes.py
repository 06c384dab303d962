import pytest

from common.sizes import human, parsed


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("200GB", 200 * 10**9),
        ("1.5 TiB", 3 << 39),
        ("12", 12),
        ("7b", 7),
        ("3k", 3000),
        ("0.5mib", 1 << 19),
    ],
)
def test_sizes_are_read(text, nbytes):
    """As people write them."""
    assert parsed(text) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 ZB", "1e9", "1,5GB", "1 G B"])
def test_what_is_no_size(text):
    """It is refused."""
    with pytest.raises(ValueError, match="is no size"):
        parsed(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 bytes"), (1000, "1.0 kB"), (17_805_840_571, "17.81 GB"), (3e15, "3000 TB")],
)
def test_sizes_are_written(nbytes, text):
    """In powers of a thousand."""
    assert human(nbytes) == text

import pytest

from common.models.layers import Layers
from common.models.near import Near


@pytest.fixture
def layers(tmp_path):
    """A layer with a file of the manifest, and two that are nobody's."""
    for name in ("vae/low.safetensors", "loras/wan_vae.safetensors", "vae/x.txt"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return Layers.open([tmp_path])


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("wan_vae.safetensors", "wan_vae.safetensors"),
        ("wan-vae.safetensors", "wan_vae.safetensors"),
        ("low1.safetensors", None),
        ("x_vae.safetensors", None),
        ("something_else_altogether.safetensors", None),
    ],
    ids=["elsewhere", "misspelt", "another of the manifest", "only the ending", "far"],
)
def test_what_is_nearly_meant(layers, name, near):
    """A file that is nobody's, not one that the manifest has under that name."""
    found = Near(layers, {"vae/low.safetensors"}).to(name)
    assert (found and found.name) == near

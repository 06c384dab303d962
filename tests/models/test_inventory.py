"""What is there of the manifest's files, and who may look without making anything."""

from common.models import ModelEnsurer
from common.models.layers import State
from tests.models.shelf import shelf


def test_near_misses_are_said(tmp_path):
    """A file in the wrong folder is what people most often have."""
    misplaced = tmp_path / "root" / "models" / "checkpoints" / "a.safetensors"
    misplaced.parent.mkdir(parents=True)
    misplaced.write_bytes(b"x")

    with shelf(tmp_path) as shop:
        shop.put("a.safetensors")
        (status,) = shop.ensurer().status()[0].files

    assert (status.state, status.near) == (State.ABSENT, misplaced)


def test_looking_makes_nothing(tmp_path):
    """A root that is not there stays so, and all files are absent."""
    with shelf(tmp_path) as shop:
        shop.put("a.safetensors")
        looking = ModelEnsurer.from_config(shop.settings(), make=False)
        (status,) = looking.verify(looking.manifest.files, deep=True)

    assert status.state is State.ABSENT
    assert looking.there() == ()
    assert not (tmp_path / "root").exists()

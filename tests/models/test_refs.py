import pytest

from common.models import refs
from common.models.errors import BadManifest, Missing, ReadOnly
from common.models.layer import Layer


@pytest.fixture
def layer(tmp_path):
    return Layer.open(tmp_path)


def test_a_use_is_remembered(layer):
    """Model, files, manifest and time come back."""
    refs.touch(layer, "t2v-A14B@2.2.0", ["b", "a"], digest="d", now=5.0)
    [ref] = refs.load(layer)

    assert ref == refs.Ref("t2v-A14B@2.2.0", frozenset("ab"), 5.0, "d")


def test_a_use_is_not_written_each_time(layer):
    """A job a second does not write a file a second; other files do count at once."""
    refs.touch(layer, "m", ["a"], now=100.0)
    refs.touch(layer, "m", ["a"], now=130.0)
    assert refs.load(layer)[0].last_used == 100.0
    refs.touch(layer, "m", ["a"], now=161.0)
    assert refs.load(layer)[0].last_used == 161.0
    refs.touch(layer, "m", ["a", "b"], now=162.0)
    assert refs.load(layer)[0].keys == frozenset("ab")
    refs.touch(layer, "m", ["a", "b"], now=50.0)
    assert refs.load(layer)[0].last_used == 50.0


def test_a_pin_outlives_uses(layer):
    """Another pod's "used now" does not undo a pin."""
    refs.pin(layer, "m@1", ["a"])
    refs.touch(layer, "m@1", ["a", "b"], now=1.0)

    assert refs.pins(layer) == {"m@1"}
    refs.unpin(layer, "m@1")
    assert refs.pins(layer) == frozenset()
    with pytest.raises(Missing):
        refs.unpin(layer, "m@1")


@pytest.mark.parametrize("model", ["", "../x", "a/b", ".hidden", "a\0", "x" * 300])
def test_an_id_that_is_no_name_is_refused(layer, model):
    """No id becomes a path outside of its folder."""
    with pytest.raises(BadManifest):
        refs.touch(layer, model, [])


def test_a_layer_that_is_only_read_remembers_nothing(tmp_path):
    """And says so."""
    with pytest.raises(ReadOnly):
        refs.touch(Layer.open(tmp_path, writable=False), "m", [])

import json
import threading
import time

import pytest

from common.models import leases
from common.models.why import why
from tests.models.shelf import shelf
from tests.models.tensors import placed


@pytest.fixture
def weights(tmp_path):
    """A publisher of two files."""
    with shelf(tmp_path) as published:
        published.put("a.safetensors", 8192)
        published.put("b.safetensors", 4096)
        yield published


@pytest.fixture
def ensurer(weights):
    """One over an empty root."""
    return weights.ensurer()


def test_every_layer_is_looked_at(weights):
    """Also where a better one is found; the lowest first."""
    weights.ensurer("image").ensure("m@1")
    both = weights.ensurer(models_layers=(weights.folder / "image",))

    found = why(both, "a.safetensors", ())

    assert [(one.root.name, one.state.value, one.writable) for one in found.places] == [
        ("image", "verified", False),
        ("root", "absent", True),
    ]
    assert found.receipt is not None
    assert found.receipt.how == "fetched"
    assert found.status.layer == weights.folder / "image"


def test_what_gc_would_remove_is_said(weights, ensurer):
    """With gc's own reason, for a file that is not used and asked no more."""
    ensurer.ensure("m@1")
    layer = ensurer.layers.writable
    [unknown] = [one for one in ensurer.manifest.files if one.name == "b.safetensors"]
    (layer.root / "refs" / "m@1.json").unlink()
    age(layer)

    kept = why(ensurer, "b.safetensors", ())
    assert (kept.goes, kept.gc) == (
        False,
        "the manifest names it: only --max-bytes may want its room",
    )
    collector = ensurer.collector()
    collector._configured -= {unknown.key}
    ensurer.collector = lambda: collector
    assert (why(ensurer, "b.safetensors", ()).goes) is True
    assert why(ensurer, "b.safetensors", ()).gc == "no model uses it"


def age(layer):
    for path in (layer.root / "receipts").glob("*.json"):
        receipt = json.loads(path.read_bytes())
        old = time.time() - 10 * 86_400
        path.write_text(json.dumps(receipt | {"verified_at": old}))


def test_who_fetches_it_is_said(ensurer):
    """And gc leaves it alone meanwhile."""
    file = ensurer.manifest.file("a.safetensors")
    layer = ensurer.layers.writable
    placed(layer, file, b"x" * 10)
    with leases.lease(layer, file.key, stop=threading.Event()) as held:
        held._next = 0.0
        held.progress(50, 100)
        found = why(ensurer, "a.safetensors", ())

    assert found.holder is not None
    assert "(50 %)" in found.holder
    assert found.gc == "somebody fetches it"
    assert [one.state.value for one in found.places] == ["corrupt"]


def test_who_is_dead_fetches_nothing(ensurer):
    """What a killed process said last stays in its record, and is no news."""
    file, layer = ensurer.manifest.file("a.safetensors"), ensurer.layers.writable
    with leases.lease(layer, file.key, stop=threading.Event()):
        record = layer.lock(f"{file.key}.json")
        said = record.read_bytes()
    record.write_bytes(said)

    assert leases.holder(layer, file.key) is not None
    assert why(ensurer, "a.safetensors", ()).holder is None


def test_a_use_is_said_with_its_age(ensurer):
    """So that a person knows what --keep-days would do."""
    ensurer.ensure("m@1")

    found = why(ensurer, "a.safetensors", ())

    assert "m@1 was used 0.0 days ago" in found.gc


def test_the_object_has_no_more_than_json(ensurer):
    """What is returned can be written."""
    found = why(ensurer, "a.safetensors", ()).as_dict()
    assert json.loads(json.dumps(found)) == found

import pytest

from common.manifest_schema import WeightFile
from common.models.layers import State
from common.models.status import FileStatus, ModelStatus, state_of

FILE = WeightFile(
    name="a.safetensors", folder="vae", unverified=True, sources=("local:///a",)
)


def status(state, done=0, size=10):
    usable = state in (State.VERIFIED, State.UNVERIFIED)
    return FileStatus(FILE, state, done, size, None, usable)


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ([status(State.VERIFIED, 10), status(State.UNVERIFIED, 10)], "ready"),
        ([status(State.VERIFIED, 10), status(State.ABSENT)], "partial"),
        ([status(State.PARTIAL, 3)], "partial"),
        ([status(State.ABSENT), status(State.ABSENT)], "absent"),
        ([status(State.VERIFIED, 10), status(State.CORRUPT, 10)], "corrupt"),
    ],
    ids=["ready", "one is absent", "half a file", "absent", "corrupt"],
)
def test_a_model_is_as_good_as_its_worst_file(files, state):
    """What keeps it from being loaded decides."""
    assert state_of(files) == state


def test_a_model_says_how_many_bytes_are_there():
    """Sizes that nobody knows yet count as what is there."""
    model = ModelStatus(
        "m@1", "v", (status(State.PARTIAL, 3), status(State.PARTIAL, 4, None))
    )

    assert (model.done_bytes, model.size) == (7, 14)
    assert model.as_dict()["state"] == "partial"


def test_a_sum_with_an_unknown_size_is_a_least():
    """It says so, until the file is there and its size with it."""
    known = status(State.ABSENT, size=2000)
    unknown = status(State.ABSENT, size=None)
    there = status(State.UNVERIFIED, 3000, None)

    assert ModelStatus("m@1", "v", (known, unknown)).size_said == "over 2.0 kB"
    assert ModelStatus("m@1", "v", (known, there)).size_said == "5.0 kB"

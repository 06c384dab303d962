"""What history and queue say about a prompt, in the shapes of both versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.comfy.state import (
    Finished,
    History,
    Queued,
    Running,
    in_history,
    in_queue,
    sizes,
)
from common.events import EngineFile, Failed

OUTPUTS = {"58": {"images": [{"filename": "x.mp4", "type": "output"}]}, "9": {}}
FILES = {"58": (EngineFile("x.mp4"),)}
ERROR = {"node_id": "3", "node_type": "KSampler", "exception_message": "no"}


def entry(status, messages, outputs=OUTPUTS):
    return {
        "p": {
            "outputs": outputs,
            "status": {"status_str": status, "messages": messages},
        }
    }


@pytest.mark.parametrize(
    ("body", "history"),
    [
        (entry("success", [["execution_success", {}]]), History("success", FILES)),
        (entry("success", ["execution_success"]), History("success", FILES)),
        (
            entry("error", [["execution_start", {}], ["execution_interrupted", {}]]),
            History("interrupted", FILES),
        ),
        (
            entry("error", ["execution_start", "execution_interrupted"]),
            History("interrupted", FILES),
        ),
        (
            entry("error", [["execution_error", ERROR]]),
            History("error", FILES, Failed("3", "KSampler", "", "no")),
        ),
        (
            entry("error", ["execution_start", "execution_error: a: b\n"]),
            History("error", FILES, Failed("", "", "", "a: b")),
        ),
        (entry("error", None, None), History("error", {}, Failed("", "", "", ""))),
    ],
    ids=["success", "fork", "interrupted", "fork", "error", "fork", "bare"],
)
def test_history(body, history):
    """Both shapes tell success, error and interrupt apart."""
    assert in_history(body, "p") == Finished(history)


@pytest.mark.parametrize("body", [{}, None, [], {"q": {}}, {"p": None}])
def test_not_in_history(body):
    """An unknown prompt is not in history."""
    assert in_history(body, "p") is None


QUEUE = {
    "queue_running": [[0, "r", {}, {}, []]],
    "queue_pending": [[3, "c", {}], [1, "a", {}], [-2, "b", {}], "?", []],
}
FORK_QUEUE = {
    "queue_running": [{"priority": 0, "prompt_id": "r"}],
    "queue_pending": [
        {"priority": 3, "prompt_id": "c"},
        {"priority": 1, "prompt_id": "a"},
        {"priority": -2, "prompt_id": "b"},
        {"priority": 4},
    ],
}


@pytest.mark.parametrize("body", [QUEUE, FORK_QUEUE], ids=["arrays", "objects"])
def test_queue(body):
    """The smaller number runs first, whatever the order of the list."""
    places = [in_queue(body, i) for i in "rbacx"]

    assert places == [Running(), Queued(0), Queued(1), Queued(2), None]
    assert sizes(body) == (1, 3)


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    "p",
                    "status",
                    "messages",
                    "outputs",
                    "queue_running",
                    "queue_pending",
                    "prompt_id",
                    "priority",
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_body(body):
    """No answer raises."""
    in_history(body, "p")
    in_queue(body, "p")
    sizes(body)

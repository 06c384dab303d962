"""What ComfyUI's frames mean, and that no frame can hurt."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.events import (
    MAX_PREVIEW_BYTES,
    Cached,
    Ended,
    EngineFile,
    Executed,
    Executing,
    Failed,
    Interrupted,
    NodeStates,
    Preview,
    Progress,
    Started,
    Succeeded,
    loads,
    parse,
    parse_binary,
)

JPEG = b"\xff\xd8\xff\xe0rest"
PNG = b"\x89PNG\r\n\x1a\nrest"


@pytest.mark.parametrize(
    ("kind", "data", "event"),
    [
        ("execution_start", {}, Started()),
        ("execution_cached", {"nodes": ["3", "8"]}, Cached(frozenset({"3", "8"}))),
        ("executing", {"node": "3"}, Executing("3")),
        ("executing", {"node": None}, Ended()),
        ("progress", {"node": "3", "value": 2, "max": 8}, Progress("3", 2, 8)),
        ("progress", {"node": 3, "value": 2, "max": 8}, Progress("3", 2, 8)),
        ("progress", {"node": "3", "value": 9, "max": 8}, Progress("3", 8, 8)),
        (
            "progress_state",
            {
                "nodes": {
                    "1": {"state": "finished", "value": 1, "max": 1},
                    "3": {"state": "running", "value": 1, "max": 8},
                    "9": {"state": "pending", "value": 0, "max": 1},
                }
            },
            NodeStates(frozenset({"1"}), (Progress("3", 1, 8),)),
        ),
        (
            "executed",
            {
                "node": "58",
                "output": {
                    "images": [
                        {"filename": "x.mp4", "subfolder": "video", "type": "output"}
                    ],
                    "animated": [True],
                },
            },
            Executed("58", (EngineFile("x.mp4", "video", "output"),)),
        ),
        ("executed", {"node": "9", "output": None}, Executed("9", ())),
        ("execution_success", {}, Succeeded()),
        ("execution_interrupted", {"node_id": "3"}, Interrupted()),
        (
            "execution_error",
            {
                "node_id": "3",
                "node_type": "KSampler",
                "exception_type": "RuntimeError",
                "exception_message": "no\n",
                "traceback": ["…"],
            },
            Failed("3", "KSampler", "RuntimeError", "no"),
        ),
        ("execution_error", {}, Failed("", "", "", "")),
    ],
)
def test_parse(kind, data, event):
    """Each kind of message is one event of its prompt."""
    message = {"type": kind, "data": data | {"prompt_id": "p"}}

    assert parse(message) == ("p", event)


def test_without_prompt_id():
    """A returning client is greeted with a node and no prompt id."""
    assert parse({"type": "executing", "data": {"node": "3"}}) == (
        None,
        Executing("3"),
    )


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "status", "data": {"status": {}}},
        {"type": "crystools.monitor", "data": {}},
        {"type": "progress", "data": None},
        {"type": "progress", "data": {"node": "3", "value": 1, "max": 0}},
        {"type": "progress", "data": {"node": "3", "value": "1", "max": 2}},
        {"type": "progress", "data": {"node": "3", "value": 10**400, "max": 2}},
        {"type": "progress", "data": {"node": "3", "value": float("nan"), "max": 2}},
        {"type": "progress", "data": {"node": "3", "value": True, "max": 2}},
        {"type": "progress_state", "data": {"nodes": []}},
        {"type": "executing", "data": {}},
        {"type": "executing", "data": {"node": {}}},
        {"type": ["executing"], "data": {"node": "3"}},
    ],
)
def test_of_no_interest(message):
    """What is malformed or unknown is no event."""
    assert parse(message) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "9" * 10_000])
def test_loads_refuses(text):
    """A frame that is not a JSON object is dropped."""
    assert loads(text) is None


def with_metadata(metadata, image):
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    return struct.pack(">II", 4, len(text)) + text + image


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (struct.pack(">II", 1, 1) + JPEG, (None, Preview(JPEG, "image/jpeg", None))),
        (struct.pack(">II", 1, 2) + PNG, (None, Preview(PNG, "image/png", None))),
        (
            with_metadata({"prompt_id": "p", "node_id": "3"}, JPEG),
            ("p", Preview(JPEG, "image/jpeg", "3")),
        ),
        (with_metadata({}, PNG), (None, Preview(PNG, "image/png", None))),
    ],
    ids=["jpeg", "png", "with metadata", "empty metadata"],
)
def test_parse_binary(frame, expected):
    """A preview comes with its content type, and its prompt where it is told."""
    assert parse_binary(frame) == expected


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0\0\0\1",
        struct.pack(">II", 1, 1),
        struct.pack(">II", 1, 1) + b"<svg onload=x>",
        struct.pack(">II", 2, 1) + JPEG,
        struct.pack(">II", 4, 2**31) + b"{}" + JPEG,
        with_metadata(b"not json", JPEG),
        with_metadata(b"[]", JPEG),
        struct.pack(">II", 1, 1) + JPEG + bytes(MAX_PREVIEW_BYTES),
    ],
)
def test_no_preview(frame):
    """What is not whole, not known, not an image or far too large is no preview."""
    assert parse_binary(frame) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    "node",
                    "nodes",
                    "value",
                    "max",
                    "output",
                    "prompt_id",
                    "images",
                    "filename",
                    "state",
                    "subfolder",
                    "exception_message",
                    "3",
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
kinds = st.sampled_from(
    (
        "execution_start",
        "execution_cached",
        "executing",
        "progress",
        "progress_state",
        "executed",
        "execution_success",
        "execution_error",
        "execution_interrupted",
    )
)


@given(kinds | json_values, json_values)
def test_any_message(kind, data):
    """No message raises, and a prompt id is text or nothing."""
    found = parse({"type": kind, "data": data})

    assert found is None or found[0] is None or isinstance(found[0], str)


@given(st.binary(max_size=64), st.sampled_from([1, 4, None]))
def test_any_binary(tail, kind):
    """No binary frame raises."""
    parse_binary(tail if kind is None else struct.pack(">I", kind) + tail)

import hashlib
import json

import pytest

from common.models.errors import Corrupt
from common.models.safetensors import MAX_HEADER, check, fingerprint
from tests.models.tensors import tensors


def raw(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    head = (len(text) if length is None else length).to_bytes(8, "little")
    return head + text + body


def tensor(start=0, stop=4, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.fixture
def file(tmp_path):
    def write(data):
        path = tmp_path / "x.safetensors"
        path.write_bytes(data)
        return path

    return write


def test_a_sound_file_says_what_it_holds(file):
    """The header's hash, the number of tensors and the metadata come back."""
    data = tensors(7, count=3)
    length = int.from_bytes(data[:8], "little")

    header = check(file(data))

    assert header.tensors == 3
    assert header.metadata == {"seed": "7"}
    assert header.sha256 == hashlib.sha256(data[8 : 8 + length]).hexdigest()
    assert fingerprint(file(data)) == header.sha256


@pytest.mark.parametrize("cut", [1, 100, 4096, 4200], ids=lambda cut: f"{cut} bytes")
def test_a_cut_file_is_corrupt(file, cut):
    """A file that ends early is seen, be it by one byte."""
    with pytest.raises(Corrupt):
        check(file(tensors()[:-cut]))


BAD = {
    "empty": b"",
    "html": b"<!DOCTYPE html><html>404</html>" * 9,
    "grown": tensors() + b"\0",
    "no JSON": raw(b"{]"),
    "an array": raw(b"[]"),
    "too deep": raw(b'{"a":' + b"[" * 200_000),
    "header longer than the file": raw({}, length=1000),
    "header over the limit": raw({}, b"", MAX_HEADER + 1),
    "equal keys": raw(
        b'{"a":%s,"a":%s}' % ((json.dumps(tensor()).encode(),) * 2), b"1234"
    ),
    "gap": raw({"a": tensor(), "b": tensor(8, 12)}, b"1" * 12),
    "overlap": raw({"a": tensor(), "b": tensor(2, 6)}, b"1" * 6),
    "not from 0": raw({"a": tensor(4, 8)}, b"1" * 8),
    "backwards": raw({"a": tensor(4, 0)}, b"1" * 4),
    "another size than its shape": raw({"a": tensor(0, 4, (2,))}, b"1" * 4),
    "negative side": raw({"a": tensor(0, 4, (-1, -1))}, b"1" * 4),
    "no dtype": raw({"a": {"shape": [1], "data_offsets": [0, 4]}}, b"1" * 4),
    "metadata of numbers": raw({"__metadata__": {"a": 1}}),
    "true as an offset": raw(
        {"a": {"dtype": "U8", "shape": [1], "data_offsets": [False, True]}}, b"1"
    ),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_no_reader_should_trust_is_corrupt(file, data):
    """Whatever the reference reader refuses is refused before ComfyUI sees it."""
    with pytest.raises(Corrupt):
        check(file(data))


def test_a_dtype_of_tomorrow_is_accepted(file):
    """A dtype that we do not know has no size that we could check."""
    data = raw({"a": tensor(0, 3, (6,), "F4_NEW")}, b"123")

    assert check(file(data)).tensors == 1


def test_an_empty_tensor_and_padding_are_fine(file):
    """The format allows shapes with a zero, and spaces after the header."""
    text = json.dumps({"a": tensor(0, 0, (0, 4)), "b": tensor(0, 4)}).encode() + b"   "

    assert check(file(raw(text, b"1234"))).tensors == 2

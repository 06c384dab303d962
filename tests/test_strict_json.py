import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MalformedRequest
from common.strict_json import loads

KEY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=4),
    max_leaves=20,
)


@given(VALUE)
def test_reads_what_json_writes(value):
    """What the standard library writes comes back, escaped or in UTF-8."""
    assert loads(json.dumps(value).encode(), max_depth=100) == value
    assert loads(json.dumps(value, ensure_ascii=False).encode(), max_depth=100) == value


@given(
    st.binary(max_size=40)
    | st.text('[]{}",:\\u d8\n0123456789.eE+-tfn').map(str.encode)
)
def test_never_takes_what_json_refuses(data):
    """Whatever comes in, the answer is the standard parser's value or a refusal."""
    try:
        value = loads(data)
    except MalformedRequest:
        return
    assert value == json.loads(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON: Expecting value (line 1, column 1)"),
        (b"{x}", "line 1, column 2"),
        (b'{"a":1,}', "not JSON"),
        (b'{"a":1/*c*/}', "not JSON"),
        (b'{"a":1', "not JSON"),
        (b"{}{}", "Extra data"),
        (b'{"a":0x51}', "not JSON"),
        (b'{"a":+81}', "not JSON"),
        (b'{"a":"\\x41"}', "not JSON"),
        (b'{"a":"\n"}', "control character"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        ('{"a":1}'.encode("utf-16-le"), "not JSON"),
        ('{"a":1}'.encode("utf-32"), "not UTF-8"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":"\xe2\x82"}', "not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":["x",{"\\udc00":1}]}', "surrogate"),
        (b'"\\ude00\\ud83d"', "surrogate"),
        (b'{"a":NaN}', "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e400]", "out of range"),
        (b"[-1e99999999999999999999]", "out of range"),
        (b"[%s]" % (b"9" * 21), "20 digits"),
        (b"[-%s]" % (b"9" * 5000), "20 digits"),
        (b"[0.%s]" % (b"9" * 100_000), "64 characters"),
        (b'{"a":1,"a":2}', "twice"),
        (b'{"a":1,"\\u0061":2}', "twice"),
        (b'{"l":[{"n":"x","n":"y"}]}', "twice"),
        (b'{"%s":1}' % (b"k" * 1_000_000), "name of over 256"),
        (b"[" * 17 + b"]" * 17, "nested over 16"),
        (b"[" * 1_000_000, "nested over 16"),
        (b'{"a":' * 20 + b"1" + b"}" * 20, "nested over 16"),
        (b"]", "not JSON"),
        (b"[%s]" % b",".join([b"0"] * 10_001), "over 10000 values"),
        (b"[%s]" % b",".join([b"[]"] * 5_001), "over 10000 values"),
        (b'"' * 10_000_000, "over 10000 values"),
    ],
)
def test_refuses_by_name(data, says):
    """Each refusal says what is wrong and does not carry the input back."""
    with pytest.raises(MalformedRequest) as refusal:
        loads(data)

    assert says in refusal.value.detail
    assert len(refusal.value.detail) < 120


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'"[[[[[[[[[[[[[[[[[[[[[[[["', "[" * 24),
        (b'"\\"[\\\\"', '"[\\'),
        (b"[" * 16 + b"]" * 16, [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]),
        (b"[18446744073709551615]", [2**64 - 1]),
        (b"-0.0", -0.0),
        (b" null\n", None),
    ],
)
def test_takes(data, value):
    """What is proper JSON is read, brackets within strings included."""
    assert loads(data) == value


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":"' + b'\\"' * 8_000_000,
        b'{"a":"' + b"\\n" * 8_000_000 + b'"}',
        b" " * 16_000_000 + b"{}",
        b"[" + b"9" * 16_000_000 + b"]",
        b"\\" * 16_000_000,
    ],
    ids=["unclosed string", "escapes", "blanks", "digits", "backslashes"],
)
@pytest.mark.timeout(30)
def test_is_linear(data):
    """Megabytes of the worst input take a moment; anything quadratic takes hours."""
    with contextlib.suppress(MalformedRequest):
        loads(data)


def test_floats_keep_their_sign_and_value():
    """A float is the nearest double, as everywhere."""
    assert math.copysign(1, loads(b"-0.0")) == -1
    assert loads(b"0.1") == 0.1

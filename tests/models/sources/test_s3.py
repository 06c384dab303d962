import time

import pytest
import requests

from common.models.errors import AuthNeeded
from common.models.sources import NotThere, SourceTrouble
from common.models.sources.s3 import S3Access, S3Source
from common.source_urls import parse
from tests.fake_hub import serving

DATA = bytes(range(256)) * 20
BUCKET = "weights"
KEY = "deep/with space/x.safetensors"


@pytest.fixture(scope="module")
def endpoint():
    """Run moto's S3 in this process, on a free port."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        "127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for path, data in (("", b""), (f"/{KEY}", DATA)):
        public = {"x-amz-acl": "public-read"}
        made = requests.put(f"{url}/{BUCKET}{path}", data, headers=public, timeout=10)
        made.raise_for_status()
    yield url
    server.stop()


def source(endpoint, key=KEY, bucket=BUCKET, **access):
    keys = {"access_key_id": "the-id", "secret_access_key": "the-secret"}
    label = f"s3://{bucket}/{key}"
    return S3Source(
        label, parse(label), S3Access(endpoint=endpoint, **(keys | access)), 5.0
    )


def test_an_object_is_a_signed_url(endpoint):
    """It is read in ranges by whoever has the URL, for an hour."""
    address = source(endpoint).resolve()

    assert address.size == len(DATA)
    assert not address.headers
    assert 3500 < address.expires_at - time.time() <= 3600
    got = requests.get(address.url, headers={"Range": "bytes=5-9"}, timeout=5)
    assert (got.status_code, got.content) == (206, DATA[5:10])


def test_the_region_is_signed(endpoint):
    """A bucket elsewhere wants its own region."""
    assert "%2Feu-west-1%2Fs3" in source(endpoint, region="eu-west-1").resolve().url


def test_a_public_object_is_its_plain_url(endpoint):
    """Nobody signs, and nobody needs a key."""
    address = source(
        endpoint, public=True, access_key_id=None, secret_access_key=None
    ).resolve()

    assert address.url == f"{endpoint}/{BUCKET}/deep/with%20space/x.safetensors"
    assert (address.size, address.expires_at) == (len(DATA), None)


@pytest.mark.parametrize(
    "asked", [{"key": "nope"}, {"bucket": "nowhere"}], ids=["key", "bucket"]
)
def test_what_is_not_in_the_bucket_is_not_there(endpoint, asked):
    """The next source is asked."""
    with pytest.raises(NotThere, match="s3://"):
        source(endpoint, **asked).resolve()


@pytest.mark.parametrize(
    ("access", "start"),
    [
        ({"endpoint": None}, "https://weights.s3.eu-west-1.amazonaws.com/deep/"),
        (
            {"endpoint": None, "path_style": True},
            "https://s3.eu-west-1.amazonaws.com/weights/deep/",
        ),
        (
            {"endpoint": "https://s3.example.com/", "path_style": False},
            "https://weights.s3.example.com/deep/",
        ),
        ({"endpoint": "http://minio:9000"}, "http://minio:9000/weights/deep/"),
    ],
    ids=["amazon", "amazon by path", "by host", "minio"],
)
@pytest.mark.parametrize("public", [False, True], ids=["signed", "public"])
def test_a_bucket_is_in_the_host_or_in_the_path(monkeypatch, access, start, public):
    """Amazon wants the first, and most others take only the second."""
    monkeypatch.setattr("obstore.head", lambda store, key: {"size": 1})

    address = source(region="eu-west-1", public=public, **access).resolve()
    assert address.url.startswith(start)


def test_a_refused_key_needs_another(endpoint):
    """The hint names the variables; neither the id nor the secret is said."""
    with serving(lambda *_: (403, {}, b"")) as port:
        refused = source(f"http://127.0.0.1:{port}")
        with pytest.raises(AuthNeeded) as caught:
            refused.resolve()

    said = f"{caught.value.message} {caught.value.hint} {refused!r}"
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    assert "the-id" not in said
    assert "the-secret" not in said


def test_no_key_is_said_to_be_missing():
    """A machine of Amazon's has one of its own, and others have not."""
    with pytest.raises(AuthNeeded, match="no key is set") as caught:
        source("http://127.0.0.1:9", access_key_id=None).resolve()
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_an_endpoint_that_is_not_there_is_no_answer():
    """No network is no proof that a file is missing."""
    with pytest.raises(SourceTrouble, match="s3://weights"):
        source("http://127.0.0.1:9").resolve()

import hashlib
import threading

import pytest

from common.models import mirror
from common.models.errors import AuthNeeded, Corrupt, SourcesFailed, Stopped
from common.models.mirror import open_mirror
from common.models.sources import S3Access, mirror_path

DATA = bytes(range(256)) * 64
SHA = hashlib.sha256(DATA).hexdigest()
WRONG = hashlib.sha256(b"other").hexdigest()


@pytest.fixture(scope="module")
def endpoint():
    """Run moto's S3 in this process, on a free port."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        "127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    client(f"http://{host}:{port}").create_bucket(Bucket="weights")
    yield f"http://{host}:{port}"
    server.stop()


def client(endpoint):
    boto3 = pytest.importorskip("boto3")
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="the-id",
        aws_secret_access_key="the-secret",
        region_name="us-east-1",
    )


def access(endpoint):
    return S3Access(
        endpoint=endpoint, access_key_id="the-id", secret_access_key="the-secret"
    )


@pytest.fixture(params=["folder", "bucket"])
def target(request, tmp_path):
    """An empty mirror of either kind, and what lists the files that it has."""
    if request.param == "folder":
        root = tmp_path / "mirror"
        yield (
            open_mirror(f"local://{root}", S3Access()),
            lambda: sorted(
                str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()
            ),
        )
        return
    endpoint = request.getfixturevalue("endpoint")
    s3, prefix = client(endpoint), f"below/{tmp_path.name}"

    def listed():
        found = s3.list_objects_v2(Bucket="weights", Prefix=f"{prefix}/")
        return [
            one["Key"].removeprefix(f"{prefix}/") for one in found.get("Contents", [])
        ]

    yield open_mirror(f"s3://weights/{prefix}/", access(endpoint)), listed
    # A half upload costs its owner room that no listing shows.
    assert not s3.list_multipart_uploads(Bucket="weights").get("Uploads")


@pytest.fixture
def file(tmp_path):
    """A file to copy."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(DATA)
    return path


def test_a_file_lies_by_its_sha256(target, file):
    """It is found where sources look for it, and its size is known."""
    there, listed = target
    told = []
    assert there.size(SHA) is None

    there.put(file, SHA, lambda done, total: told.append((done, total)), stopped(False))

    assert listed() == [mirror_path(SHA)]
    assert there.size(SHA) == len(DATA)
    assert told == [(len(DATA), len(DATA))]


def test_wrong_bytes_get_no_name(target, file):
    """Nothing is left of a file whose sha256 is another."""
    there, listed = target
    with pytest.raises(Corrupt, match=SHA):
        there.put(file, WRONG, lambda *_: None, stopped(False))
    assert listed() == []


def test_what_a_mirror_has_can_be_hashed(target, file, monkeypatch):
    """In parts; damage of the same size shows, which a comparison of sizes hides."""
    there, _ = target
    there.put(file, SHA, lambda *_: None, stopped(False))
    monkeypatch.setattr(mirror, "PART", 5000)
    assert there.digest(SHA, lambda *_: None, stopped(False)) == SHA
    assert there.digest(WRONG, lambda *_: None, stopped(False)) is None
    with pytest.raises(Stopped):
        there.digest(SHA, lambda *_: None, stopped(True))

    damaged = b"?" + DATA[1:]
    if isinstance(there, mirror.Folder):
        (there.root / mirror_path(SHA)).write_bytes(damaged)
    else:
        obstore = pytest.importorskip("obstore")
        obstore.put(there._store(), there._key(SHA), damaged)

    assert there.size(SHA) == len(DATA)
    found = there.digest(SHA, lambda *_: None, stopped(False))
    assert found == hashlib.sha256(damaged).hexdigest()


def test_a_stop_leaves_nothing(target, file):
    """An interrupted copy has no name and no half upload."""
    there, listed = target
    with pytest.raises(Stopped):
        there.put(file, SHA, lambda *_: None, stopped(True))
    assert listed() == []


def test_a_file_of_several_parts(endpoint, tmp_path, monkeypatch):
    """It is put together again as it was."""
    monkeypatch.setattr(mirror, "PART", 5 << 20)
    data = bytes(11 << 20)
    path = tmp_path / "big"
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    there = open_mirror("s3://weights/parts", access(endpoint))

    there.put(path, sha256, lambda *_: None, stopped(False))

    key = f"parts/{mirror_path(sha256)}"
    got = client(endpoint).get_object(Bucket="weights", Key=key)
    assert got["Body"].read() == data
    assert got["ETag"].endswith('-3"')  # S3's mark of an object of three parts


def test_a_bucket_that_is_not_there(endpoint, file):
    """It is said, and not made."""
    there = open_mirror("s3://nowhere", access(endpoint))
    assert there.size(SHA) is None
    with pytest.raises(SourcesFailed, match="no such bucket"):
        there.put(file, SHA, lambda *_: None, stopped(False))


def test_a_bucket_that_refuses_us(tmp_path, file):
    """The message names the bucket and no key."""
    from tests.range_server import Fault, RangeServer

    with RangeServer(tmp_path, lambda asked: Fault(403)) as server:
        there = open_mirror("s3://weights/x", access(server.url))
        with pytest.raises(AuthNeeded) as caught:
            there.size(SHA)
    text = caught.value.message + str(caught.value.hint)
    assert "s3://weights/x" in text
    assert "the-id" not in text
    assert "the-secret" not in text


def stopped(now):
    stop = threading.Event()
    if now:
        stop.set()
    return stop

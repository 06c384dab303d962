"""Big outputs, into a real S3 server on loopback."""

import contextlib
import json

import pytest
import requests

from common.errors import InvalidInput
from common.job import Job, Output
from common.jobs.ledger import now
from common.runpod import delivery
from common.runpod.buckets import Bucket, NotUploaded, region
from common.runpod.delivery import NotDelivered, deliver
from common.runpod.settings import RunPod
from tests.runpod.conftest import s3_client

pytest.importorskip("obstore")

ALLOWED = frozenset({"127.0.0.1"})
JOB_ID = "11111111-2222-4333-8444-555555555555"


ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}


@pytest.fixture(scope="module")
def keys(s3):
    """Return the id and secret of one who may do all."""
    iam = s3_client(s3, "iam")
    iam.create_user(UserName="worker")
    policy = json.dumps({"Version": "2012-10-17", "Statement": [ALL]})
    iam.put_user_policy(UserName="worker", PolicyName="all", PolicyDocument=policy)
    made = iam.create_access_key(UserName="worker")["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


@contextlib.contextmanager
def strict(url):
    """Let the server check keys; it does not know signed links, though."""

    def after(calls):
        reset = f"{url}/moto-api/reset-auth"
        requests.post(reset, data=calls, timeout=5).raise_for_status()

    after(b"0")
    try:
        yield
    finally:
        after(b"1000000")


def finished(folder, size):
    """Return a job with one output of so many bytes, and put the file there."""
    (folder / "video.mp4").write_bytes(b"x" * size)
    output = Output("video.mp4", "video", "video/mp4", size, "0" * 64, 256, 256)
    job = Job(JOB_ID, "fastwan", "embedded", {}, now(), outputs=(output,))
    told = [{"name": "video.mp4", "url": "/jobs/x", "poster_url": None}]
    return job, told


async def test_a_big_output_is_uploaded_and_linked(tmp_path, s3, keys):
    """In parts, with its type, under the job's id; the link needs no credentials."""
    size = delivery.INLINE_BYTES + 1
    job, told = finished(tmp_path, size)

    with strict(s3):
        done = await deliver(job, told, tmp_path, Bucket(s3, "clips", *keys))

    (output,) = done.outputs
    answer = requests.get(output["url"], timeout=10)
    assert (answer.status_code, len(answer.content)) == (200, size)
    assert answer.headers["content-type"] == "video/mp4"
    assert f"/clips/fastwan/{JOB_ID}/video.mp4?" in output["url"]
    assert "X-Amz-Expires=604800" in output["url"]
    assert done.inline == []
    assert "poster_url" not in output
    assert f"{keys[0]}%2F" in output["url"]
    assert keys[1] not in output["url"]


async def test_wrong_credentials_are_said(tmp_path, s3):
    """A small file still comes inline, with a warning; a big one is refused."""
    wrong = Bucket(s3, "clips", "AKIAWRONG", "canary-secret")
    job, told = finished(tmp_path, 1000)

    with strict(s3):
        done = await deliver(job, told, tmp_path, wrong)
        with pytest.raises(NotDelivered, match="refuses the credentials") as refused:
            await deliver(
                *finished(tmp_path, delivery.INLINE_BYTES + 1), tmp_path, bucket=wrong
            )

    assert len(done.inline) == 1
    assert "url" not in done.outputs[0]
    assert "refuses the credentials" in done.outputs[0]["warning"]
    assert "canary" not in str(refused.value)
    assert "canary" not in repr(wrong)


async def test_a_bucket_that_is_not_there_is_said(tmp_path, s3):
    """By what is wrong, without its address."""
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(NotUploaded, match="no such bucket"):
        await Bucket(s3, "absent", "a", "b").put(tmp_path / "a", "a", "video/mp4")


async def test_without_a_bucket_only_small_files_go(tmp_path):
    """The refusal says which settings are needed."""
    small = await deliver(*finished(tmp_path, 1000), tmp_path, bucket=None)
    with pytest.raises(NotDelivered, match=r"no bucket is set.*BUCKET_ENDPOINT_URL"):
        await deliver(
            *finished(tmp_path, delivery.INLINE_BYTES + 1), tmp_path, bucket=None
        )

    assert len(small.inline) == 1
    assert "warning" not in small.outputs[0]


CONFIG = {
    "endpointUrl": "http://127.0.0.1:9000",
    "accessId": "id",
    "accessSecret": "canary-secret",
    "bucketName": "mine",
}


async def test_a_request_brings_its_own_bucket():
    """By the names that RunPod's own worker takes."""
    bucket = await Bucket.of_request(CONFIG, ALLOWED)

    assert (bucket.name, bucket.key_id) == ("mine", "id")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ("s3://x", "s3Config"),
        ({**CONFIG, "bucketName": 3}, "s3Config.bucketName"),
        ({k: v for k, v in CONFIG.items() if k != "accessId"}, "s3Config.accessId"),
        ({**CONFIG, "endpointUrl": "http://169.254.169.254/"}, "s3Config.endpointUrl"),
        ({**CONFIG, "endpointUrl": "http://localhost:8188"}, "s3Config.endpointUrl"),
        ({**CONFIG, "endpointUrl": "file:///etc"}, "s3Config.endpointUrl"),
    ],
    ids=["text", "number", "absent", "metadata", "inside", "scheme"],
)
async def test_a_bad_bucket_is_refused_by_its_field(config, field):
    """Its address is a stranger's: it cannot be one inside our network."""
    with pytest.raises(InvalidInput) as refused:
        await Bucket.of_request(config, frozenset())

    assert refused.value.errors[0].field == field
    assert "canary" not in str(refused.value)


def test_the_operators_bucket_is_in_the_environment(monkeypatch):
    """All three of address, id and secret, or none; the name has the SDK's default."""
    monkeypatch.setenv("BUCKET_ENDPOINT_URL", "https://s3.eu-west-1.amazonaws.com")
    monkeypatch.setenv("BUCKET_ACCESS_KEY_ID", "id")
    assert Bucket.of_environment(RunPod()) is None

    monkeypatch.setenv("BUCKET_SECRET_ACCESS_KEY", "secret")
    unnamed = Bucket.of_environment(RunPod())
    monkeypatch.setenv("BUCKET_NAME", "clips")
    named = Bucket.of_environment(RunPod())

    assert unnamed.name == now().strftime("%m-%y")
    monkeypatch.setenv("BUCKET_ACCESS_KEY_ID", "")  # as the Hub's form leaves it
    assert (named.name, named.secret) == ("clips", "secret")
    assert Bucket.of_environment(RunPod()) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://bucket.s3.us-west-2.amazonaws.com", "us-west-2"),
        ("https://s3.amazonaws.com", "us-east-1"),
        ("https://fra1.digitaloceanspaces.com", "fra1"),
        ("https://s3.us-east-005.backblazeb2.com", "us-east-005"),
        ("https://abc.r2.cloudflarestorage.com", "us-east-1"),
        ("https://s3api-eu-ro-1.runpod.io", "eu-ro-1"),
        ("http://minio:9000", "us-east-1"),
    ],
)
def test_the_region_is_in_the_address(url, expected):
    """Signatures name one, and most kinds of storage check it."""
    assert region(url) == expected

from pathlib import Path

import pytest

from common.manifest import WeightFile
from common.models.sources import SourceConfig, mirror_path, sources_of
from common.models.sources.expiry import expires_at

SHA = "ab" * 32
COMMIT = "0123456789" * 4
FILE = WeightFile(
    name="x.safetensors",
    folder="vae",
    size=10,
    sha256=SHA,
    sources=(
        "local://shared/x.safetensors",
        f"hf://ORG/REPO@{COMMIT}/x.safetensors",
        "s3://bucket/x.safetensors",
        "https://example.com/x.safetensors",
    ),
)


def labels(config, file=FILE, sha256=None):
    return [source.label for source in sources_of(file, config, sha256)]


def test_sources_are_asked_in_the_order_of_the_manifest():
    """The Hub's caches on this machine go before the Hub."""
    config = SourceConfig(hf_caches=(Path("/a"), Path("/b")))

    assert labels(config) == [
        "local://shared/x.safetensors",
        f"cache of hf://ORG/REPO@{COMMIT}/x.safetensors",
        f"cache of hf://ORG/REPO@{COMMIT}/x.safetensors",
        f"hf://ORG/REPO@{COMMIT}/x.safetensors",
        "s3://bucket/x.safetensors",
        "https://example.com/x.safetensors",
    ]


@pytest.mark.parametrize(
    "mirror", ["s3://bucket/models/", "local:///mnt/copy", "https://example.com/m"]
)
def test_a_mirror_is_asked_first(mirror):
    """It has files by their content."""
    first = labels(SourceConfig(mirror=mirror))[0]

    assert first == f"{mirror.rstrip('/')}/blobs/sha256/ab/{SHA}"


@pytest.mark.parametrize(
    "mirror",
    ["ftp://x/y", "https://me:topsecret@x/y", "hf://ORG/REPO@main", "topsecret"],
)
def test_a_mirror_of_no_known_kind_is_refused_at_start(mirror):
    """The message does not repeat what may hold a secret."""
    with pytest.raises(ValueError, match=r"is no|is not|has") as caught:
        SourceConfig(mirror=mirror)
    assert "topsecret" not in str(caught.value)


def test_a_mirror_has_what_the_lock_knows():
    """An unverified file is asked for once its sha256 is recorded."""
    file = FILE.model_copy(update={"sha256": None, "unverified": True})
    config = SourceConfig(mirror="s3://bucket")

    assert labels(config, file)[0] == "local://shared/x.safetensors"
    assert labels(config, file, SHA)[0] == f"s3://bucket/{mirror_path(SHA)}"


def test_offline_is_what_this_machine_has():
    """Nobody is asked over the network, the mirror included."""
    config = SourceConfig(offline=True, hf_caches=(Path("/a"),), mirror="s3://bucket")

    assert labels(config) == [
        "local://shared/x.safetensors",
        f"cache of hf://ORG/REPO@{COMMIT}/x.safetensors",
    ]


@pytest.mark.parametrize(
    ("query", "moment"),
    [
        ("X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-Signature=s", 1767225660),
        ("X-Goog-Date=20260101T000000Z&X-Goog-Expires=60", 1767225660),
        ("Expires=1767225660&Signature=s&Key-Pair-Id=k", 1767225660),
        ("se=2026-01-01T00:01:00Z&sig=s", 1767225660),
        ("X-Amz-Expires=60", None),
        ("Expires=tomorrow", None),
        ("download=true", None),
    ],
    ids=["aws", "google", "cloudfront", "azure", "no date", "no number", "plain"],
)
def test_a_signed_url_says_when_it_expires(query, moment):
    """Each signer has a way of its own; what is not understood does not count."""
    assert expires_at(f"https://cdn.example.com/x?{query}") == moment

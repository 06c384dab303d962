import pytest

from common.models.sources import NotThere
from common.models.sources.hf_cache import HubCache
from common.source_urls import parse

COMMIT = "0123456789" * 4
SHA = "ab" * 32


class Cache:
    """A cache as huggingface_hub leaves it."""

    def __init__(self, hub):
        self.hub = hub
        self.repo = hub / "models--ORG--REPO"

    def put(self, commit, path, blob, branch=None):
        data = self.repo / "blobs" / blob
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_bytes(b"x")
        link = self.repo / "snapshots" / commit / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(data)
        if branch:
            (self.repo / "refs").mkdir(exist_ok=True)
            (self.repo / "refs" / branch).write_text(commit)
        return data

    def find(self, revision, path="deep/x.safetensors", sha256=None):
        url = f"hf://ORG/REPO@{revision}/{path}"
        return HubCache(url, parse(url), self.hub, sha256).resolve()


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "hub")


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_cached_file_is_found_by_its_revision(cache, revision):
    """A branch is the commit that it was when it was fetched."""
    data = cache.put(COMMIT, "deep/x.safetensors", "etag", branch="main")

    assert cache.find(revision) == data


def test_a_cached_file_is_found_by_its_content(cache):
    """A platform fetches the newest commit; the bytes are the same."""
    data = cache.put("f" * 40, "elsewhere.safetensors", SHA)

    assert cache.find(COMMIT, sha256=SHA) == data


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_what_is_not_cached_is_not_there(cache, revision):
    """An empty cache, and one of another commit, have nothing."""
    with pytest.raises(NotThere):
        cache.find(revision)
    cache.put("f" * 40, "deep/x.safetensors", "etag")
    with pytest.raises(NotThere):
        cache.find(revision)

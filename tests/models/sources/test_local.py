import pytest

from common.models.sources import NotThere
from common.models.sources.local import LocalSource
from common.source_urls import parse


def local(url, root=None):
    return LocalSource(url, parse(url), root)


def test_a_local_file_is_its_path(tmp_path):
    """Absolute, or below the configured folder."""
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"x")

    assert local(f"local://{file.as_posix()}").resolve() == file
    assert local("local://x.safetensors", tmp_path).resolve() == file


@pytest.mark.parametrize("url", ["local://nope", "local://."], ids=["absent", "folder"])
def test_what_is_no_file_is_not_there(tmp_path, url):
    """A folder is no file."""
    with pytest.raises(NotThere, match=url):
        local(url, tmp_path).resolve()


def test_a_relative_path_needs_a_folder():
    """Nothing is looked up below the folder that the service was started in."""
    with pytest.raises(NotThere, match="below no folder"):
        local("local://pyproject.toml").resolve()

"""Wrong bytes are put aside for whoever asks why, and do not fill the volume."""

import pytest

from common.models.errors import Corrupt
from tests.models.shelf import shelf


def test_a_source_that_lies_leaves_one_copy_aside(tmp_path):
    """However often it is tried; the last one is kept, with its record."""
    with shelf(tmp_path) as shop:
        data = shop.put("a.safetensors", 50_000)
        mine = tmp_path / "root" / "models" / "vae" / "a.safetensors"
        mine.parent.mkdir(parents=True)
        mine.write_bytes(b"mine")
        wrong = bytearray(data)
        for last in range(3):
            wrong[-1] = last
            (shop.server.folder / "a.safetensors").write_bytes(wrong)
            with pytest.raises(Corrupt):
                shop.ensurer().ensure("m@1")
        aside = sorted((tmp_path / "root" / ".quarantine").glob("*/data"))

    # What somebody else had put there is not ours to remove.
    assert sorted(len(path.read_bytes()) for path in aside) == [4, len(data)]
    assert all((path.parent / "record.json").exists() for path in aside)

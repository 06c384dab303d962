import pytest
import xxhash

from common.models.segments import block_hashes, segment_hash, segment_hashes

DATA = memoryview(bytes(range(250)))


def test_a_segment_is_known_by_its_blocks():
    """The definition that models.lock relies on, from one release to the next."""
    blocks = [xxhash.xxh3_64_hexdigest(DATA[at : at + 100]) for at in (0, 100, 200)]

    assert block_hashes(DATA, 100) == blocks
    assert segment_hashes(blocks, 2) == (
        segment_hash(blocks[:2]),
        segment_hash([blocks[2]]),
    )
    assert segment_hash(blocks) == "3d03bc9908004c85b0e2b7489c58826b"


@pytest.mark.parametrize("at", [0, 99, 249])
def test_any_changed_byte_changes_its_segment_alone(at):
    """That is what a repair needs to know."""
    changed = bytearray(DATA)
    changed[at] ^= 1
    before = segment_hashes(block_hashes(DATA, 10), 5)
    after = segment_hashes(block_hashes(memoryview(changed), 10), 5)

    different = [
        n for n, pair in enumerate(zip(before, after, strict=True)) if len({*pair}) == 2
    ]
    assert different == [at // 50]

"""The board gives each block to somebody until it is there."""

import random

import pytest

from common.models.board import Board, span


def bring(board, piece):
    """Write all of a piece."""
    whole = []
    while piece.at < piece.end:
        if board.may_write(piece.at):
            whole.append(board.wrote(piece.at))
        piece.at += 1
    board.give_back(piece)
    return [segment for segment in whole if segment is not None]


@pytest.mark.parametrize("seed", range(20))
def test_any_order_ends_with_all(seed):
    """Pieces that break, slow ones and bad segments only cost more turns."""
    chance = random.Random(seed)
    gate = chance.choice([None, 4])
    claimed = chance.sample(range(40), 10)
    board = Board(40, claimed, gate)
    now, segments = 0.0, []
    for block in claimed:
        segments.append(board.checked(block, good=chance.random() < 0.5))
    pieces = []
    while board.done < 40:
        now += 1
        piece = board.take(5, now) or board.take_over(1, 2, now)
        if piece is not None:
            pieces.append(piece)
        if pieces and chance.random() < 0.7:
            piece = pieces.pop(chance.randrange(len(pieces)))
            if chance.random() < 0.3:
                board.give_back(piece)
            else:
                segments += bring(board, piece)
        for segment in filter(lambda found: found is not None, segments):
            if chance.random() < 0.3:
                board.failed(segment)
            else:
                board.passed(segment)
        segments = []
        assert now < 10_000

    assert board.mark == board.there == 40
    assert board.missing == board.writing == 0


def test_pieces_go_from_the_start_and_do_not_cross_what_is_there():
    """The first missing blocks go first."""
    board = Board(10, claimed=[3])
    first, second = board.take(8, 0), board.take(4, 0)

    assert (first.at, first.end) == (0, 3)
    assert (second.at, second.end) == (4, 8)
    board.give_back(first)
    assert board.take(8, 0).at == 0


def test_the_mark_stops_at_the_first_hole():
    """Hashing goes only as far as all is there."""
    board = Board(6)
    first, second = board.take(2, 0), board.take(2, 0)
    bring(board, second)
    assert board.mark == 0
    bring(board, first)
    assert board.mark == 4


def test_a_segment_counts_when_it_passed():
    """Behind a gate a block that is written is not there yet."""
    board = Board(4, gate=2)
    assert bring(board, board.take(4, 0)) == [0, 1]
    assert (board.mark, board.done, board.there) == (0, 0, 4)
    board.passed(0)
    board.failed(1)
    assert (board.mark, board.done, board.missing) == (2, 2, 2)


def test_the_slowest_piece_is_shared():
    """The second half goes to another; the last block is taken twice, written once."""
    board = Board(9)
    slow, fast = board.take(8, 0), board.take(1, 0)
    fast.bytes, slow.bytes = 10, 1
    assert board.take_over(1, 1, now=0.5) is None
    assert board.take_over(1, 100, now=5) is None

    helper = board.take_over(1, 1, now=5)
    assert (slow.at, slow.end, helper.at, helper.end) == (0, 4, 4, 8)
    slow.at = 3
    both = board.take_over(1, 1, now=5)
    assert (both.at, both.end) == (3, 4)
    assert board.may_write(3)
    assert not board.may_write(3)


def test_a_block_with_two_owners_stays_taken():
    """Who gives it back first does not give it away."""
    board = Board(1)
    owner = board.take(1, 0)
    helper = board.take_over(1, 1, now=5)
    board.give_back(owner)
    assert board.missing == 0
    board.give_back(helper)
    assert board.missing == 1


@pytest.mark.parametrize(
    ("missing", "blocks"), [(0, 4), (64, 4), (640, 20), (2048, 64), (30_000, 64)]
)
def test_ranges_shrink_towards_the_end(missing, blocks):
    """Between the least and the most."""
    assert span(missing, 16, 4, 64) == blocks

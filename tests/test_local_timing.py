from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from providers.base import TimedWord
from providers.timing import spread_words


def test_longer_words_take_longer() -> None:
    assert spread_words("a table, please ", 100, 1000) == (
        TimedWord("a", 100, 212),
        TimedWord("table,", 212, 606),
        TimedWord("please", 606, 1000),
    )


def test_nothing_to_say_has_no_words() -> None:
    assert spread_words(" \n", 0, 500) == ()


@given(st.lists(st.text("abc,é", min_size=1, max_size=12), min_size=1), st.integers(0, 10_000), st.integers(0, 60_000))
def test_words_fill_their_piece_in_order_without_holes(words: list[str], start: int, length: int) -> None:
    timed = spread_words(" ".join(words), start, start + length)
    assert [one.word for one in timed] == words
    assert timed[0].start_ms == start
    assert timed[-1].end_ms == start + length
    assert all(one.end_ms == after.start_ms for one, after in itertools.pairwise(timed))
    assert all(one.start_ms <= one.end_ms for one in timed)

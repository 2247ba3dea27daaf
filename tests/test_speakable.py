"""Markup and emoji never reach the voice; words do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.speaking.speakable import speakable


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("**Hello** *there* _you_ `x` snake_case ", "Hello there you x snake_case "),
        ("# Title\n- one\n* two\n1. three", "Title\none\ntwo\n1. three"),
        ("see [our menu](https://a.b/c_(d)) now", "see our menu now"),
        ("![a plate](http://x/y.png) of food", "a plate of food"),
        ("write to <mailto:a@b.c>", "write to mailto:a@b.c"),
        ("Great 😀👍🏽! 👨‍👩‍👧", "Great ! "),
        ("1️⃣ first", "1 first"),
        ("2 * 3 = 6, 2*3", "2 * 3 = 6, 2*3"),
        ("5 - 3 and -4 ", "5 - 3 and -4 "),
        ("```python\nprint(1)\n```\nDone", "\nprint(1)\n\nDone"),
        ("a < b > c", "a < b > c"),
        ("one<br/>two", "onetwo"),
        ("It's #1, isn't it? ¿Qué?", "It's #1, isn't it? ¿Qué?"),
        ("as they say [1][^2].", "as they say ."),
        ("~~no~~ yes", "no yes"),
        ("https://x.y/a_b_c", "https://x.y/a_b_c"),
        ("* * *", ""),
        ("क्‍ष", "क्‍ष"),
    ],
)
def test_markup_goes_and_words_stay(written: str, said: str) -> None:
    assert speakable(written) == said


@pytest.mark.parametrize("pieces", [("**bold ", "words** end"), ("*it", "alic*"), ("[our ", "menu](http://a.b/c) ok")])
def test_markup_cut_in_two_does_not_leak(pieces: tuple[str, str]) -> None:
    said = "".join(speakable(piece) for piece in pieces)
    assert not set(said) & set("*[]()")
    assert "http" not in said


@given(st.text(alphabet='ab1 *_`#-+>|~[]()<>/!.\n\t😀️‍"', max_size=40))
def test_saying_it_twice_changes_nothing(text: str) -> None:
    once = speakable(text)
    assert speakable(once) == once
    assert sum(map(str.isalpha, once)) <= sum(map(str.isalpha, text))


@given(st.text(alphabet=st.characters(categories=["L", "Nd"]), max_size=30))
def test_plain_words_are_untouched(text: str) -> None:
    assert speakable(text) == text

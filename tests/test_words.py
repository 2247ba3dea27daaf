"""Which words were heard, and where that is in the text."""

from __future__ import annotations

import pytest

from pipelines.speaking.words import Words
from providers.base import TimedWord


def _timed(text: str, first_ms: int = 0) -> list[TimedWord]:
    """One word every 100 ms."""
    return [TimedWord(word, first_ms + i * 100, first_ms + i * 100 + 100) for i, word in enumerate(text.split())]


@pytest.mark.proves("row-76")
def test_each_word_is_reported_once_when_half_of_it_has_sounded() -> None:
    words = Words("One two three.")
    words.add(_timed("One two three."))
    assert words.spoken(49) == []
    assert [(i, w.word) for i, w in words.spoken(50)] == [(0, "One")]
    assert words.spoken(149) == []
    assert [(i, w.word) for i, w in words.spoken(10_000)] == [(1, "two"), (2, "three.")]
    assert words.spoken(10_000) == []
    assert (words.count, words.last_word) == (3, "three.")


def test_nothing_heard_is_no_text() -> None:
    words = Words("Hello there.")
    words.add(_timed("Hello there."))
    assert words.heard_text(0) == ""
    assert (words.count, words.last_word) == (0, None)


@pytest.mark.proves("row-79")
def test_heard_text_keeps_punctuation_and_spacing_of_the_original() -> None:
    words = Words("Well,  of course: two — at ten-thirty!  Anything else?")
    words.add(_timed("Well of course two at ten thirty Anything else"))
    assert words.heard_text(260) == "Well,  of course:"
    assert words.heard_text(450) == "Well,  of course: two — at"
    assert words.heard_text(560) == "Well,  of course: two — at ten-"
    assert words.heard_text(660) == "Well,  of course: two — at ten-thirty!"


@pytest.mark.parametrize(
    ("text", "said", "heard_ms", "heard"),
    [
        ("Table for 2, please.", "Table for two please", 260, "Table for 2,"),
        ("That is $20 now.", "That is twenty dollars now", 260, "That is"),
        ("That is $20 now.", "That is twenty dollars now", 360, "That is $20"),
        ("1 of one.", "one of one", 60, "1"),
        ("It is 10:30 a.m. on Monday", "It is ten thirty a m on Monday", 760, "It is 10:30 a.m. on Monday"),
        ("你好，我想订位。", "你 好 我 想 订 位", 260, "你好，我"),
        ("你好，我想订位。", "你好 我想 订位", 160, "你好，我想"),
        ("STRASSE ist lang", "Straße ist lang", 160, "STRASSE ist"),
        ("one and two and three and four", "one and two and three and four", 360, "one and two and"),
    ],
)
def test_words_that_sound_otherwise_are_found_in_the_text(text: str, said: str, heard_ms: int, heard: str) -> None:
    words = Words(text)
    words.add(_timed(said))
    assert words.heard_text(heard_ms) == heard


def test_missing_word_times_are_bridged_by_the_next_known_word() -> None:
    words = Words("I can offer you a table at eight.")
    words.add([TimedWord("I", 0, 100), TimedWord("table", 500, 600), TimedWord("eight.", 700, 800)])
    assert words.heard_text(60) == "I"
    assert words.heard_text(560) == "I can offer you a table"


def test_words_that_come_late_are_still_reported_and_in_order() -> None:
    words = Words()
    words.extend("One two. ")
    words.add(_timed("One two."))
    assert len(words.spoken(900)) == 2
    words.extend("Three four.")
    words.add(_timed("Three four.", 200))
    assert [w.word for _, w in words.spoken(900)] == ["Three", "four."]
    assert words.heard_text(900) == "One two. Three four."


def test_text_in_other_words_falls_back_to_the_words() -> None:
    words = Words("42")
    words.add(_timed("forty two"))
    assert words.heard_text(300) == "forty two"
    assert words.heard_text(60) == "forty"


def test_a_long_utterance_is_searched_quickly() -> None:
    text = "the quick brown fox and the lazy dog and the cat " * 60
    words = Words(text)
    words.add(_timed(text))
    assert words.heard_text(100 * 300) == " ".join(text.split()[:300])

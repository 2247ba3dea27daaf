"""How streaming text is cut into pieces to be spoken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.speaking.sentences import FIRST_LIMIT, LATER_LIMIT, Sentences

_PARTS = [
    *(
        "Hello",
        "Dr",
        "no",
        "No",
        "J",
        "I",
        "e.g",
        "a.m",
        "3.14",
        "10:30",
        "$4,000.00",
        "7",
        "https://a.b/c?d=e",
        "bob@x.co",
    ),
    *(
        "¿Qué",
        "¡Sí",
        "你好",
        "我想",
        "***",
        "...",
        "…",
        ".",
        "!",
        "?",
        ",",
        ";",
        ":",
        "\n",
        "。",
        "！",
        "，",
        "」",
        ")",
        '"',
        "—",
    ),
    *("x" * 70, "x" * 1100, *[" "] * 12),
]
_TEXTS = st.lists(st.sampled_from(_PARTS), max_size=60).map("".join)


def _pieces(*tokens: str) -> list[str]:
    sentences = Sentences()
    pieces = [piece for token in tokens for piece in sentences.push(token)]
    return pieces + sentences.flush()


@given(_TEXTS)
def test_joined_pieces_are_the_text(text: str) -> None:
    pieces = _pieces(text)
    assert "".join(pieces) == text
    assert all(pieces)


@given(_TEXTS, st.integers(1, 7))
def test_pieces_do_not_depend_on_how_tokens_were_cut(text: str, size: int) -> None:
    assert _pieces(*(text[i : i + size] for i in range(0, len(text), size))) == _pieces(text)


@given(st.text(max_size=300))
def test_any_text_survives(text: str) -> None:
    assert "".join(_pieces(*text)) == text


@pytest.mark.parametrize(
    "whole",
    [
        "It costs 3.14 or $4,000.00 at 10:30. ",
        "Ask Dr. Smith and Mrs. J. R. Jones. ",
        "Try e.g. the U.S. at 9 a.m. on Monday. ",
        "See https://a.b/c.d?e=f,g;h. ",
        "Mail bob.b@x.co.uk about No. 5. ",
        "1. Wait for it... then go. ",
    ],
)
def test_what_belongs_together_is_never_torn_apart(whole: str) -> None:
    assert _pieces(whole, "Then the next sentence.")[0] == whole


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hi! How are you?", ["Hi! ", "How are you?"]),
        ("¿Qué tal? ¡Muy bien! Vale.", ["¿Qué tal? ", "¡Muy bien! Vale."]),
        ("你好。我想订位！好的？", ["你好。", "我想订位！好的？"]),
        ("「はい。」わかりました。", ["「はい。」", "わかりました。"]),
        ("I said no. Then he went away.", ["I said no. ", "Then he went away."]),
        ("Well... Yes we can do that.", ["Well... ", "Yes we can do that."]),
        ('He said "Go." Then he went.', ['He said "Go." ', "Then he went."]),
        ("**Sure.** We do have a table.", ["**Sure.** ", "We do have a table."]),
        ("First line\nSecond line", ["First line\n", "Second line"]),
        ("So do I. Really, you know?", ["So do I. ", "Really, you know?"]),
        (
            "Ok. One. Two. Three. Here comes a whole sentence. And another one, of some length. End.",
            ["Ok. ", "One. Two. Three. Here comes a whole sentence. ", "And another one, of some length. ", "End."],
        ),
    ],
)
def test_cuts_lie_at_the_ends_of_sentences(text: str, pieces: list[str]) -> None:
    assert _pieces(text) == pieces


@pytest.mark.proves("row-44")
def test_first_piece_comes_at_the_first_clause_not_at_the_end_of_the_sentence() -> None:
    sentences = Sentences()
    assert sentences.push("Sure, let me look that up,") == []
    assert sentences.push(" and I will") == ["Sure, let me look that up, "]


@pytest.mark.proves("row-44")
def test_first_piece_never_waits_for_punctuation() -> None:
    sentences = Sentences()
    first = next(piece for word in ["word"] * 30 for piece in sentences.push(word + " "))
    assert len(first) <= FIRST_LIMIT
    assert first.endswith("word ")


def test_first_sentence_is_ready_without_the_next_one() -> None:
    assert Sentences().push("Hello there. ") == ["Hello there. "]


def test_an_endless_sentence_is_cut_at_a_clause() -> None:
    pieces = _pieces("Hello. " + "some more words, " * 40)
    assert all(len(piece) <= LATER_LIMIT for piece in pieces)
    assert all(piece.endswith(", ") for piece in pieces[1:])


def test_a_very_long_text_is_cut_in_reasonable_time() -> None:
    pieces = _pieces("One short sentence of the text. " * 20_000)
    assert len(pieces) == 20_000


def test_a_text_that_stalls_gives_its_whole_words() -> None:
    sentences = Sentences()
    assert sentences.push("Well let me ha") == []
    assert sentences.hurry() == ["Well let me "]
    assert sentences.hurry() == []
    assert sentences.push("ve a look at") == []
    assert sentences.hurry() == ["have a look "]
    assert sentences.flush() == ["at"]


@pytest.mark.parametrize("text", ["", "Well", "Well then", "Ask for Dr. ", "- - - - "])
def test_a_text_that_stalls_is_not_spoken_by_less_than_a_few_words(text: str) -> None:
    sentences = Sentences()
    assert sentences.push(text) == []
    assert sentences.hurry() == []
    assert sentences.flush() == ([text] if text else [])

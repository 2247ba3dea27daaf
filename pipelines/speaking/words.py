"""Which words of an utterance the caller has heard, and where that is in its text. Pure.

Word times come from the speech engine: late, with words missing, or spelt as they sound ("2" comes back as "two"). A
word counts as heard when half of it has sounded: cut earlier, nobody could have understood it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from providers.base import TimedWord

# A token is a run of letters and digits, or one character of a script that is written without spaces.
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_AHEAD = 12
"""How many words past the heard ones take part in finding the place in the text."""


class _Token(NamedTuple):
    text: str
    end: int


class _Anchor(NamedTuple):
    """So many tokens of what was said are so many tokens of the text."""

    said: int
    text: int


class Words:
    """The words of one utterance. `text` is what was given to be spoken; streams `extend` it as it grows."""

    def __init__(self, text: str = "") -> None:
        self._text = text
        self._words: list[TimedWord] = []
        self._reported = 0

    @property
    def count(self) -> int:
        """How many words `spoken` has reported."""
        return self._reported

    @property
    def last_word(self) -> str | None:
        """The last word that `spoken` has reported."""
        return self._words[self._reported - 1].word if self._reported else None

    def extend(self, text: str) -> None:
        """More text of the same utterance."""
        self._text += text

    def add(self, timed: Sequence[TimedWord]) -> None:
        """More words of the utterance, in the order they are spoken."""
        self._words.extend(word for word in timed if word.word.strip())

    def spoken(self, heard_ms: int) -> list[tuple[int, TimedWord]]:
        """The words that were passed since this was last asked, with their 0-based index. Each comes once."""
        start = self._reported
        self._reported = max(start, self._passed(heard_ms))
        return [(index, self._words[index]) for index in range(start, self._reported)]

    def heard_text(self, heard_ms: int) -> str:
        """The part of the text that was heard, as it was written; the bare words where they cannot be found in it."""
        heard = max(self._passed(heard_ms), self._reported)
        if heard == 0:
            return ""
        end = _end_in(self._text, self._words[:heard], self._words[heard : heard + _AHEAD])
        if end is None:
            return " ".join(word.word.strip() for word in self._words[:heard])
        return self._text[:end].strip()

    def _passed(self, heard_ms: int) -> int:
        passed = self._reported
        while passed < len(self._words) and _middle(self._words[passed]) <= heard_ms:
            passed += 1
        return passed


def _middle(word: TimedWord) -> float:
    return (word.start_ms + max(word.start_ms, word.end_ms)) / 2


def _end_in(text: str, heard: Sequence[TimedWord], ahead: Sequence[TimedWord]) -> int | None:
    """Where the heard words end in `text`; None when none of them occurs there."""
    said = _said(heard)
    known = said + _said(ahead)
    # What lies far behind the heard words cannot be what was heard: leaving it out keeps this cheap.
    tokens = [_Token(match[0].casefold(), match.end()) for match in _TOKEN.finditer(text)][: 2 * len(known) + _AHEAD]
    anchors = _anchors(known, [token.text for token in tokens])
    if not anchors or not said:
        return None
    count = min(_place(len(said), anchors), len(tokens))
    return _with_punctuation(text, tokens, count) if count else 0


def _said(words: Iterable[TimedWord]) -> list[str]:
    return [token.casefold() for word in words for token in _TOKEN.findall(word.word)]


def _anchors(said: Sequence[str], text: Sequence[str]) -> list[_Anchor]:
    blocks = SequenceMatcher(None, said, text, autojunk=False).get_matching_blocks()
    return [_Anchor(block.a + i + 1, block.b + i + 1) for block in blocks for i in range(block.size)]


def _place(said: int, anchors: Sequence[_Anchor]) -> int:
    """How many tokens of the text `said` tokens are: exact at an anchor, in proportion between two, and one for one
    behind the last, where the rest of the words is not known yet."""
    before = max((anchor for anchor in anchors if anchor.said <= said), default=_Anchor(0, 0))
    after = min((anchor for anchor in anchors if anchor.said > said), default=None)
    if after is None:
        return before.text + said - before.said
    gap_said, gap_text = after.said - 1 - before.said, after.text - 1 - before.text
    return before.text if gap_said == 0 else before.text + (said - before.said) * gap_text // gap_said


def _with_punctuation(text: str, tokens: Sequence[_Token], count: int) -> int:
    end = tokens[count - 1].end
    limit = _TOKEN.search(text, end)
    while end < (limit.start() if limit else len(text)) and not text[end].isspace():
        end += 1
    return end

"""When words sound, for engines that do not say: spread by length over the audio they belong to."""

from __future__ import annotations

import re

from providers.base import TimedWord

_WORD = re.compile(r"\S+")


def spread_words(text: str, start_ms: int, end_ms: int) -> tuple[TimedWord, ...]:
    """Share `start_ms..end_ms` among the words of `text` in proportion to their characters (a space counts as one).

    Words keep their punctuation and touch each other; the last one ends at `end_ms`. Empty for text without words.
    """
    words = _WORD.findall(text)
    if not words:
        return ()
    weights = [len(word) + 1 for word in words]
    scale = (end_ms - start_ms) / sum(weights)
    timed: list[TimedWord] = []
    passed = 0
    for word, weight in zip(words, weights, strict=True):
        begin = start_ms + round(passed * scale)
        passed += weight
        timed.append(TimedWord(word, begin, start_ms + round(passed * scale)))
    return tuple(timed)

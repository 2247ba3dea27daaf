"""Cuts streaming text into pieces worth speaking. Pure.

The first piece is what the caller waits for, so it is cut as early as prosody allows; later pieces are sentences,
because the voice sounds better the more it knows. Joined, the pieces are the text, character for character, and they
do not depend on how the text was split into tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

FIRST_LIMIT = 60
"""Characters after which the first piece is cut at a word boundary, without waiting for punctuation."""
LATER_LIMIT = 200
"""The same for later pieces: one endless sentence must not starve the voice."""
CLAUSE_WORDS = 3
"""Words that a clause needs to be spoken on its own as the first piece."""
LATER_MIN = 25
"""Shorter sentences wait for the next one, except at the very beginning."""
_BLOCK = 512
_UNBROKEN_LIMIT = 1000
"""Characters without any place to cut (a huge address) after which it is cut anywhere."""

# Ends of sentences and clauses. In scripts without spaces the full-width stop itself is the end.
_STOP = re.compile(
    r"""(?P<stop>(?<![.!?…])[.!?…]+)(?P<close>["'”’»)\]*_`]*)(?P<space>\s)   # a stop, what closes behind it, a space
      | (?P<wide>(?<![。！？｡])[。！？｡]+[」』”’）】]*)(?=[^。！？｡」』”’）】])     # a full-width stop, complete
      | (?P<line>\n)
      | (?P<clause>[,;:–—]\s | [，、；：])""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s")
_WORD = re.compile(r"[^\W_]")
_WORDS = re.compile(r"[^\W_]\S*")
_BEFORE_DOT = re.compile(r"[^\s(\[\"'“‘«¿¡*_]*$")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
_SHORT = """
    mr mrs ms dr prof st sr jr sgt capt lt col gen rev hon vs etc inc ltd co corp dept est approx appt apt ave blvd rd
    tel ext fig vol pp jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri
    sra srta srs dra drs ud uds vd vds av avda pág núm tfno aprox izq dcha
    bzw usw evtl ggf inkl tägl str nr mme mlle mgr sig sigg dott ecc
"""
_ABBREVIATIONS = frozenset(_SHORT.split())
_NUMBERED = frozenset({"no", "nos", "art", "sec", "p", "nº", "n"})
"""Short for something only in front of a number."""


class _Cut(NamedTuple):
    """A place where the text may be cut: behind a sentence, behind a clause, or (None) only more text can tell."""

    end: int
    sentence: bool | None


class Sentences:
    """Splits the text of one utterance as it comes."""

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def push(self, token: str) -> list[str]:
        """More text; returns the pieces that are ready to be spoken, usually none."""
        pieces: list[str] = []
        # A long text goes in by blocks: what is scanned again and again then stays short.
        for start in range(0, len(token), _BLOCK):
            self._text += token[start : start + _BLOCK]
            while (end := self._cut()) is not None:
                pieces.append(self._text[:end])
                self._text = self._text[end:]
                self._first = False
        return pieces

    def hurry(self) -> list[str]:
        """The text hardly goes on, and somebody waits for it: the whole words there are, if they can stand alone."""
        end = _word_boundary(self._text, len(self._text))
        if end is None or len(_WORDS.findall(self._text, 0, end)) < CLAUSE_WORDS:
            return []
        piece, self._text = self._text[:end], self._text[end:]
        self._first = False
        return [piece]

    def flush(self) -> list[str]:
        """The end of the text; returns what is left."""
        rest, self._text = self._text, ""
        return [rest] if rest else []

    def _cut(self) -> int | None:
        limit = FIRST_LIMIT if self._first else LATER_LIMIT
        clause: int | None = None
        for cut in _cuts(self._text):
            if cut.end > limit:
                break
            if cut.sentence is None:
                return None
            if self._good(cut):
                return cut.end
            if not cut.sentence:
                clause = cut.end
        if len(self._text) <= limit:
            return None
        if clause is not None and clause >= LATER_MIN:
            return clause
        return _word_boundary(self._text, limit)

    def _good(self, cut: _Cut) -> bool:
        piece = self._text[: cut.end]
        if not _WORD.search(piece):
            return False
        if cut.sentence:
            return self._first or len(piece) + 2 * _wide(piece) >= LATER_MIN
        return self._first and (len(piece.split()) >= CLAUSE_WORDS or _wide(piece) >= 2 * CLAUSE_WORDS)


def _wide(text: str) -> int:
    """How many characters are of scripts that put a word into one or two."""
    return sum(character >= "\u2e80" for character in text)


def _cuts(text: str) -> Iterator[_Cut]:
    for match in _STOP.finditer(text):
        if match["stop"]:
            verdict = _ends_sentence(text, match)
            if match["space"] == "\n":
                verdict = True
            if verdict is not False:
                yield _Cut(match.end(), verdict)
        else:
            yield _Cut(match.end(), sentence=match["clause"] is None)


def _ends_sentence(text: str, match: re.Match[str]) -> bool | None:
    """Whether a stop followed by a space ends a sentence; None when that depends on text to come."""
    stop = match["stop"]
    if stop != "." and not stop.startswith("..") and stop != "…":
        return True
    following = _next_visible(text, match.end())
    if stop != ".":
        # Dots of hesitation: the sentence goes on unless a new one clearly begins.
        return None if following is None else not following.islower()
    before = _BEFORE_DOT.search(text, 0, match.start())
    word = before[0] if before else ""
    if word.isdigit() and not text[: match.start() - len(word)].rstrip(" \t").rpartition("\n")[2]:
        return False
    lower = word.casefold()
    if lower in _NUMBERED:
        return None if following is None else not following.isdigit()
    return lower not in _ABBREVIATIONS and not (_INITIALS.fullmatch(word) and word != "I")


def _next_visible(text: str, start: int) -> str | None:
    rest = text[start:].lstrip()
    return rest[0] if rest else None


def _word_boundary(text: str, limit: int) -> int | None:
    """The last word boundary within `limit`, else the first one behind it."""
    best: int | None = None
    for match in _SPACE.finditer(text, 0, _UNBROKEN_LIMIT):
        if match.end() > limit and best is not None:
            break
        # Behind "Dr." or "No." a cut would tear apart what belongs together.
        if _WORD.search(text, 0, match.start()) and text[match.start() - 1] != ".":
            best = match.end()
    if best is None and len(text) > _UNBROKEN_LIMIT:
        return _UNBROKEN_LIMIT
    return best

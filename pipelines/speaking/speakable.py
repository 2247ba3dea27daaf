"""What a voice should say of what a language model wrote. Pure; works on any piece of a text, also one cut in the
middle of its markup."""

from __future__ import annotations

import re

_SYMBOL = (
    "[\U0001f000-\U0001faff\u2190-\u21ff\u2300-\u23ff\u2500-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299]"
)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Emoji with what modifies or joins them, the leftovers of one cut in two, and keycaps (the digit stays).
    (re.compile(rf"(?:{_SYMBOL}[\ufe0f\U000e0020-\U000e007f]*\u200d?)+"), ""),
    (re.compile("[\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f]"), ""),
    # Fences with their language, rules, table borders.
    (re.compile(r"^[ \t]*(?:```|~~~)[^\n`]*$", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*(?:[-*_][ \t]*){3,}$", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*\|?[ \t]*:?-{3,}[-:| \t]*$", re.MULTILINE), ""),
    # Links and pictures: their text; addresses in angle brackets: the address; footnote marks: nothing.
    (re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)?(?:[ \t]+\"[^\"\n]*\")?\)"), r"\1"),
    (re.compile(r"\]\([^()\s]*\)"), ""),
    (re.compile(r"<((?:https?://|mailto:)[^<>\s]+)>"), r"\1"),
    (re.compile(r"\[\^?\d+\]"), ""),
    (re.compile(r"!\[|[\[\]]"), ""),
    (re.compile(r"</?[A-Za-z][A-Za-z0-9]*(?:\s[^<>]*)?/?>"), ""),
    # Headings, quotes, bullets.
    (re.compile(r"^[ \t]*#{1,6}(?:[ \t]+|$)", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*[-+*•‣▪][ \t]+", re.MULTILINE), ""),
    # Emphasis and code. A single asterisk between numbers is a multiplication.
    (re.compile(r"`+|~~+|\*\*+|\|"), ""),
    (re.compile(r"(?<!\d)(?<!\d )\*|\*(?! ?\d)"), ""),
    (re.compile(r"(?<![^\W_])_+|_+(?![^\W_])"), ""),
    (re.compile(r"[ \t]{2,}"), " "),
)


def speakable(text: str) -> str:
    """`text` without markup and emoji; words, punctuation, line breaks and the spaces at both ends stay. Idempotent."""
    # Removing one mark can join two others into a new one ("*[*"), hence until nothing changes; each round shortens.
    while True:
        shorter = text
        for pattern, replacement in _RULES:
            shorter = pattern.sub(replacement, shorter)
        if shorter == text:
            return text
        text = shorter

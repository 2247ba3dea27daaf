"""One voice as every vendor's catalogue tells it, and the short names that configurations may use for it. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from providers.catalogues.languages import SpokenLanguage

_TITLES = re.compile(r"(dr|mr|mrs|ms|prof)\.?", re.IGNORECASE)
_NOT_ALIAS = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class CatalogueVoice:
    """`id` is the vendor's; `alias` is unique within the vendor and empty until `with_aliases` has seen all voices."""

    id: str
    name: str
    provider: str
    alias: str = ""
    gender: str | None = None
    """`female`, `male`, or whatever else the vendor says."""
    style: str | None = None
    description: str | None = None
    languages: tuple[SpokenLanguage, ...] = ()
    preview_url: str | None = None

    def speaks(self, prefix: str) -> bool:
        """Whether one of its languages begins with that code, in any case; an empty one is every language."""
        return any(language.code.lower().startswith(prefix.lower()) for language in self.languages) or not prefix


VoiceSource = Callable[[], Awaitable[tuple[CatalogueVoice, ...]]]
"""Reads a vendor's list; raises ProviderError."""


def alias_of(name: str) -> str:
    """The short name a voice would like: its first word, or the last one after a title.

    The SDK's command line makes the same of a voice that comes without one, so that both sides agree.
    """
    words = re.split(r" [-\u2013] ", name)[0].split()
    if not words:
        return "voice"
    word = words[-1] if len(words) > 1 and _TITLES.fullmatch(words[0]) else words[0]
    return _NOT_ALIAS.sub("", word.lower()) or "voice"


def with_aliases(voices: Iterable[CatalogueVoice], known: Mapping[str, str]) -> tuple[CatalogueVoice, ...]:
    """Give each voice its short name, in order: `-2`, `-3`… when one is taken.

    `known` are short names that always mean one id, whoever else is called so; nobody else gets them.
    """
    fixed = {voice_id: alias for alias, voice_id in known.items()}
    taken = set(known)
    alike = Counter[str]()
    named: list[CatalogueVoice] = []
    for voice in voices:
        alias = fixed.get(voice.id) or _free(alias_of(voice.name), taken, alike)
        taken.add(alias)
        named.append(replace(voice, alias=alias))
    return tuple(named)


def _free(alias: str, taken: set[str], alike: Counter[str]) -> str:
    """`alike` remembers which numbers were looked at: of an account's voices thousands may have one name."""
    free = alias
    while free in taken:
        alike[alias] += 1
        free = f"{alias}-{alike[alias] + 1}"
    return free

"""Which pages may ask for tokens of an agent: origins as browsers send them, and the patterns agents allow. Pure.

Compared are parsed origins (scheme, host, port), never pieces of text (browser §1.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_TEXT: Final = 300
MAX_PATTERNS: Final = 200
"""An agent's patterns are gone through for every page that asks."""
_ORIGIN: Final = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([1-9][0-9]{0,4}))?", re.ASCII)
_PATTERN: Final = re.compile(
    r"(https?)://(\*\.)?([^/\\?#@\s:*\[\]]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}|\*))?/?", re.ASCII
)
_LABELS: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.ASCII)
_AMBIGUOUS: Final = frozenset("ßς\u200c\u200d")
"""Letters that browsers keep and Python's older IDNA replaces: guessing could let in somebody else's site."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What sent a request: `host` in lower case with A-labels, an IPv6 address in brackets, `port` never absent."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        port = "" if _DEFAULT_PORTS[self.scheme] == self.port else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def parse_origin(text: str) -> Origin | None:
    """The origin that an `Origin` header names; None for `null`, other schemes, and anything that is more than one."""
    found = _ORIGIN.fullmatch(text.lower()) if len(text) <= _MAX_TEXT and text.isascii() else None
    if found is None:
        return None
    host, port = _host(found[2]), int(found[3] or _DEFAULT_PORTS[found[1]])
    return None if host is None or port > 65535 else Origin(found[1], host, port)


@dataclass(frozen=True, slots=True)
class _Pattern:
    scheme: str
    host: str
    beneath: bool
    """Whether `host` stands for what is beneath it (`*.host`) and not for itself."""
    port: int | None
    """None: any."""

    def matches(self, origin: Origin) -> bool:
        if origin.scheme != self.scheme or self.port not in (None, origin.port):
            return False
        if not self.beneath:
            return origin.host == self.host
        return origin.host.endswith("." + self.host) and len(origin.host) > len(self.host) + 1


@dataclass(frozen=True, slots=True)
class AllowedOrigins:
    """What an agent allows. Empty allows nothing: then only API keys get tokens."""

    any: bool = False
    patterns: tuple[_Pattern, ...] = ()

    def __bool__(self) -> bool:
        return self.any or bool(self.patterns)

    def match(self, origin: Origin | None) -> bool:
        """Whether a page of that origin may ask."""
        return origin is not None and (self.any or any(pattern.matches(origin) for pattern in self.patterns))


def read_allowed_origins(texts: Iterable[str]) -> tuple[AllowedOrigins, list[str]]:
    """What an agent's `allowed_origins` mean, and those among them that mean nothing.

    Of different ones the first `MAX_PATTERNS` are looked at: a client may send megabytes of them.
    """
    allow_any, patterns, unusable = False, dict[_Pattern, None](), list[str]()
    for place, text in enumerate(dict.fromkeys(text.strip() for text in texts)):
        if text == "*":
            allow_any = True
            continue
        pattern = _parse_pattern(text) if place < MAX_PATTERNS else None
        if pattern is None:
            unusable.append(text)
        else:
            patterns[pattern] = None
    return AllowedOrigins(allow_any, tuple(patterns)), unusable


def _parse_pattern(text: str) -> _Pattern | None:
    found = _PATTERN.fullmatch(text.lower()) if len(text) <= _MAX_TEXT else None
    if found is None:
        return None
    scheme, beneath = found[1], found[2] is not None
    host = _host(found[3])
    if host is None or (beneath and (host.startswith("[") or host.rpartition(".")[2].isdecimal())):
        return None
    port = None if found[4] == "*" else int(found[4] or _DEFAULT_PORTS[scheme])
    return None if port is not None and port > 65535 else _Pattern(scheme, host, beneath, port)


def _host(text: str) -> str | None:
    """A host as it is compared; None if it cannot be one."""
    if text.startswith("["):
        try:
            return f"[{IPv6Address(text[1:-1])}]"
        except ValueError:
            return None
    if not text.isascii():
        if _AMBIGUOUS & set(text):
            return None
        try:
            text = text.encode("idna").decode("ascii").lower()
        except UnicodeError:
            return None
    return text if _LABELS.fullmatch(text) else None

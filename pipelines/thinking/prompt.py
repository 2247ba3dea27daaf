"""The system prompt of one call, built anew before every generation (protocol §4.8, behaviour §6.13). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\}\}")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MAX_PAGE_KEYS = 16
MAX_PAGE_KEY = 64
"""Characters of a key that a page sets."""
MAX_PAGE_VALUE = 8192
"""Characters of a value that a page sets."""
_RESERVED = frozenset({"RAG_CONTEXT", "MEMORY", "date_block"})
"""Names with a meaning in newer servers: empty here, and nothing to warn about."""


class Prompt:
    """Instructions with placeholders, the variables that fill them, and the context that follows them.

    `variables` are the agent's own; those set during the call win over them, and both over the built-in `date`,
    `time`, `day`, `datetime` and `timestamp`. `timezone` is an IANA name; one that does not exist means UTC.
    """

    def __init__(self, template: str = "", variables: Mapping[str, str] | None = None, timezone: str = "UTC") -> None:
        self._template = template
        self._variables = dict(variables or {})
        self._zone = _zone(timezone)
        self._blocks: list[str] = []
        self._context: dict[str, str] = {}
        self._page: dict[str, str] = {}
        self.unknown: set[str] = set()
        """Placeholders that no variable filled so far; whoever warns of them empties this."""

    @property
    def template(self) -> str:
        """The instructions as they were written."""
        return self._template

    def set_instructions(self, template: str) -> None:
        """New instructions; variables and context stay."""
        self._template = template

    def set_vars(self, variables: Mapping[str, str]) -> None:
        """Add or replace variables for the rest of the call."""
        self._variables.update(variables)

    def add_context(self, text: str) -> None:
        """One more block behind the instructions, verbatim."""
        self._blocks.append(text)

    def set_context(self, key: str, value: str) -> None:
        """A named line of context behind the blocks; the last value counts, an empty one removes the line."""
        if value:
            self._context[key] = value
        else:
            self._context.pop(key, None)

    def set_page_context(self, key: str, value: str | None) -> bool:
        """What the page in the user's browser says of itself; the last value counts, None removes it. It comes from
        strangers: it is rendered after everything of the agent's own, and False says that it was too much to take."""
        key = " ".join(key.split())
        if value is None:
            self._page.pop(key, None)
            return True
        if not key or len(key) > MAX_PAGE_KEY or len(value) > MAX_PAGE_VALUE:
            return False
        if key not in self._page and len(self._page) >= MAX_PAGE_KEYS:
            return False
        self._page[key] = value
        return True

    def render(self, now: datetime) -> str:
        """The whole prompt at the moment `now` (aware). Inserted values are never searched for placeholders."""
        built_in = _built_in(now.astimezone(self._zone))

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name in self._variables:
                return self._variables[name]
            if name in built_in:
                return built_in[name]
            if name not in _RESERVED:
                self.unknown.add(name)
            return ""

        lines = "\n".join(f"{key}: {line}" for key, line in self._context.items())
        shown = "\n\n".join(f"### {key}\n{text}" for key, text in self._page.items())
        page = f"## UI Context\n\n{shown}" if shown else ""
        parts = [_PLACEHOLDER.sub(value, self._template), *self._blocks, lines, page]
        return "\n\n".join(part for part in parts if part.strip())


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


def _built_in(now: datetime) -> dict[str, str]:
    return {
        "date": f"{now:%Y-%m-%d}",
        "time": f"{now:%H:%M}",
        "day": _DAYS[now.weekday()],
        "datetime": f"{now:%Y-%m-%dT%H:%M:%S}",
        "timestamp": str(int(now.timestamp() * 1000)),
    }

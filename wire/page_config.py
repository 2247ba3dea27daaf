"""Which settings a page may choose for its own session (docs/browser.md). Pure.

A page decides how it sounds and how it is heard. What the agent says, knows and may do is never its business, nor are
the addresses and keys with which the gateway reaches a vendor.
"""

from __future__ import annotations

from typing import Final

import msgspec

from wire.commands import RawConfig
from wire.parsing import snake

ALLOWED: Final = frozenset({"voice", "language", "stt", "tts", "greeting", "flash", "turn_detection"})
_PRIVATE: Final = frozenset(
    {
        *("url", "uri", "endpoint", "host", "origin", "proxy", "headers", "header"),
        *("key", "apikey", "token", "secret", "password", "credential", "credentials", "auth", "authorization"),
    }
)
"""A member whose name has one of these words in it leads somewhere, or opens something."""

Json = str | int | float | bool | list["Json"] | dict[str, "Json"] | None


def page_settings(config: RawConfig) -> tuple[RawConfig, list[str]]:
    """What of `config` counts, and the names of what was dropped."""
    taken: RawConfig = {}
    dropped: list[str] = []
    for key, value in config.items():
        if snake(key) not in ALLOWED:
            dropped.append(key)
            continue
        try:
            taken[key] = msgspec.Raw(msgspec.json.encode(_harmless(_decode(value), key, dropped)))
        except RecursionError:  # nested too deeply to mean anything
            dropped.append(key)
    return taken, sorted(dropped)


def _harmless(value: Json, path: str, dropped: list[str]) -> Json:
    if isinstance(value, list):
        return [_harmless(item, path, dropped) for item in value]
    if not isinstance(value, dict):
        return value
    kept: dict[str, Json] = {}
    for key, item in value.items():
        inner = f"{path}.{key}"
        if _PRIVATE & set(snake(key).lower().replace("-", "_").split("_")):
            dropped.append(inner)
        else:
            kept[key] = _harmless(item, inner, dropped)
    return kept


def _decode(value: msgspec.Raw) -> Json:
    return msgspec.json.decode(value)

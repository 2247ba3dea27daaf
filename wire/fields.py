"""Reads typed values out of a JSON object: the one place that says what a number, a text or a language looks like.

Vendor ranges are clamped, not refused (protocol §5.3): a sample from a README must give a working call. A value of the
wrong type is refused with a `ConfigError` that names the key. `null` always means "not given".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from wire.config import JsonValue
from wire.errors import ConfigError

Block = dict[str, JsonValue]
"""One JSON object of the configuration, keys already in snake_case."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


def snake(key: str) -> str:
    """`voiceId` -> `voice_id`; what is snake_case already stays."""
    return _CAMEL.sub("_", key).lower()


def snake_keys(block: Mapping[str, JsonValue], aliases: Mapping[str, str]) -> Block:
    """The block with every key in its own spelling; where two spellings of one key meet, the proper one wins."""
    named: Block = {}
    proper: Block = {}
    for key, value in block.items():
        name = aliases.get(snake(key), snake(key))
        (proper if name == key else named)[name] = value
    return {**named, **proper}


def plain(value: JsonValue, key: str) -> JsonValue:
    """Undecoded JSON, decoded; anything else as it is."""
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(key, "is not valid JSON") from error


def json_bytes(value: JsonValue, key: str) -> bytes:
    """The value as JSON text in UTF-8."""
    try:
        return msgspec.json.encode(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(key, "cannot be written as JSON") from error


def language_tag(value: JsonValue, key: str) -> str | None:
    """A BCP-47 tag (`es`, `es-ES`) or `multi`; underscores become dashes; blank means not given."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ConfigError(key, "must be a language tag such as 'en' or 'es-ES'")
    tag = value.strip().replace("_", "-")
    if not _LANGUAGE.fullmatch(tag):
        raise ConfigError(key, "must be a language tag such as 'en' or 'es-ES'")
    return tag


def base_language(tag: str) -> str:
    """`es-ES` -> `es`."""
    return tag.split("-", 1)[0].lower()


class Fields:
    """Typed reading of one block; `name` is the block's key, for the error texts."""

    __slots__ = ("_name", "_values")

    def __init__(self, name: str, values: Mapping[str, JsonValue]) -> None:
        self._name = name
        self._values = values

    def key(self, key: str) -> str:
        """The dotted key, as errors name it."""
        return f"{self._name}.{key}"

    def given(self, *keys: str) -> bool:
        """Whether one of the keys has a value other than null."""
        return any(self._values.get(key) is not None for key in keys)

    def text(self, key: str) -> str | None:
        """A text, trimmed; None when absent or blank. A number is taken as its text (Polly's `rate: 90`)."""
        value = self._values.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(self.number(key, 0.0, -1e9, 1e9)).removesuffix(".0")
        if value is None:
            return None
        if not isinstance(value, str):
            raise ConfigError(self.key(key), "must be a text")
        return value.strip() or None

    def language(self, key: str = "language") -> str | None:
        """A language tag, or None when absent."""
        return language_tag(self._values.get(key), self.key(key))

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number, clamped into low..high."""
        value = self._values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(self.key(key), "must be a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(self.key(key), "must be a finite number")
        # Clamped before the conversion: an integer of a thousand digits has no float.
        return float(min(max(value, low), high))

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """A number clamped into low..high, rounded."""
        return round(self.number(key, default, low, high))

    def count(self, key: str, default: int, high: int) -> int:
        """A whole number from 0; larger than `high` counts as `high`; negative or broken is refused."""
        value = self._values.get(key)
        if value is None:
            return default
        number = self.number(key, 0, -1, high)
        if number < 0 or number != int(number):
            raise ConfigError(self.key(key), "must be a whole number, 0 or more")
        return int(number)

    def optional_number(self, key: str, low: float, high: float) -> float | None:
        """A number clamped into low..high, or None when absent."""
        return self.number(key, low, low, high) if self.given(key) else None

    def flag(self, key: str, *, default: bool) -> bool:
        """true or false."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ConfigError(self.key(key), "must be true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, or one text alone; blanks are dropped."""
        value = self._values.get(key)
        if value is None:
            return ()
        items = value if isinstance(value, list) else [value]
        texts: list[str] = []
        for item in items:
            if not isinstance(item, str):
                raise ConfigError(self.key(key), "must be a list of texts")
            texts.append(item.strip())
        return tuple(text for text in texts if text)

"""What one scope of the configuration said, and how scopes lie over each other (protocol §5.1, behaviour §6.9).

Blocks (`stt`, `voice`, `llm`, `interruption`, …) merge field by field; `stt`, `voice` and `llm` only while the provider
stays the same, else the stronger one replaces and the pinned language is kept. Everything else replaces whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wire.config import JsonValue
from wire.errors import ConfigError
from wire.fields import Block, plain, snake_keys
from wire.shortcuts import read_llm, read_stt, read_voice
from wire.turntaking import read_interruption, read_turn

_ALIASES = {"tts": "voice", "instructions": "prompt", "prompt_vars": "vars"}
_READERS = {
    "stt": read_stt,
    "voice": read_voice,
    "llm": read_llm,
    "turn_detection": read_turn,
    "interruption": read_interruption,
}
_BLOCKS = frozenset({*_READERS, "vad", "session_limits", "analysis", "media"})
_SAME = {"stt": "provider", "voice": "provider", "llm": "provider", "turn_detection": "mode"}
"""The field that must be unchanged for two blocks to merge field by field; otherwise the stronger one replaces."""
_UNTOUCHED = frozenset(
    {
        *("language", "prompt", "tools", "vars", "greeting", "timezone", "flash", "skills", "memory", "raw_prompt"),
        *("knowledge_base", "greeting_in_chat", "allowed_origins", "history_save", "ringing"),
    }
)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one scope said: canonical keys, blocks with canonical providers, `null` where something was reset."""

    values: Block = field(default_factory=dict[str, JsonValue])


def normalise(payload: Mapping[str, JsonValue]) -> Block:
    """A raw frame's configuration: known keys only, snake_case, `config` folded in beneath its siblings.

    `tools`, `skills`, `vars`, `memory` keep their inside as it came.
    """
    raw = plain(payload.get("config"), "config")
    own = _own_keys(payload)
    if raw is None:
        return own
    if not isinstance(raw, dict):
        raise ConfigError("config", "must be an object")
    return over(_own_keys(raw), own)


def _own_keys(payload: Mapping[str, JsonValue]) -> Block:
    values: Block = {}
    for key, value in snake_keys(payload, _ALIASES).items():
        item = plain(value, key)
        if item == "" and key not in ("prompt", "greeting"):
            continue
        if key in _UNTOUCHED or (key in _BLOCKS and item is None):
            values[key] = item
        elif key in _BLOCKS:
            values[key] = _block(key, item)
    llm = values.get("llm")
    if isinstance(llm, dict):
        for key in ("prompt", "tools"):
            if key in llm:
                inner = llm.pop(key)
                values.setdefault(key, inner)
    return values


def _block(key: str, value: JsonValue) -> Block:
    reader = _READERS.get(key)
    block = reader(value) if reader else value
    if not isinstance(block, dict):
        raise ConfigError(key, "must be an object")
    return snake_keys(block, {})


def patch(base: Layer, update: Layer) -> Layer:
    """The scope after a later frame: an absent key keeps, `null` resets to what is inherited, blocks merge."""
    kept: Block = {}
    for key, value in base.values.items():
        new = update.values.get(key, value)
        if new is None:
            continue
        if isinstance(value, dict) and isinstance(new, dict) and key in (_BLOCKS | {"vars"}):
            kept[key] = {name: item for name, item in value.items() if new.get(name, item) is not None}
        else:
            kept[key] = value
    return Layer(over(kept, {key: value for key, value in update.values.items() if value is not None}))


def over(weaker: Mapping[str, JsonValue], stronger: Mapping[str, JsonValue]) -> Block:
    """The stronger values over the weaker ones; `null` in the stronger ones lets the weaker through."""
    merged = dict(weaker)
    for key, value in stronger.items():
        below = merged.get(key)
        if value is None:
            merged.setdefault(key, None)
        elif isinstance(value, dict) and isinstance(below, dict) and key in (_BLOCKS | {"vars"}):
            merged[key] = over_block(below, value, _SAME.get(key))
        else:
            merged[key] = value
    return merged


def over_block(weaker: Block, stronger: Block, same: str | None) -> Block:
    """The stronger block over the weaker one; `same` is the field that decides between merging and replacing."""
    said: Block = {key: value for key, value in stronger.items() if value is not None}
    if same is None or same not in said or said[same] == weaker.get(same):
        return weaker | said
    return ({"language": weaker["language"]} if weaker.get("language") is not None else {}) | said

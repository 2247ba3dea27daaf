"""From a text frame to a command.

Tolerant as the protocol asks: keys in camelCase or under older names, extra keys, `null` for "not given". Configuration
keys are gathered unread, because only the layers below a call know what they mean.
"""

from __future__ import annotations

import re
from typing import Final, get_args

import msgspec

from wire.commands import (
    AgentConfigure,
    AgentCreate,
    AnyCommand,
    ChannelAdd,
    ChannelConfigure,
    Command,
    LlmToolResult,
    RawConfig,
    SessionConfigure,
    Unknown,
)


class FrameError(ValueError):
    """The frame is not one JSON object. A flood of these is abuse (protocol §1.3)."""


class BadCommand(ValueError):
    """A known command with a field missing or of the wrong type: `error BAD_REQUEST` naming the field."""

    def __init__(self, event: str, field: str, agent_id: str = "") -> None:
        super().__init__(f"{event}: bad or missing field {field!r}")
        self.event = event
        self.field = field
        self.agent_id = agent_id
        """As sent; empty if there was none."""


def _by_tag() -> dict[str, type[Command]]:
    types: tuple[type[Command], ...] = get_args(AnyCommand)
    return {str(type_.__struct_config__.tag): type_ for type_ in types}


_TYPES: Final = _by_tag()
_GATHERS_CONFIG: Final = (AgentCreate, AgentConfigure, ChannelAdd, ChannelConfigure, SessionConfigure)
"""Their configuration keys lie beside their own; elsewhere `config` is one nested object."""
_OLDER_NAMES: Final[dict[str, dict[str, str]]] = {
    "session.configure": {"session_id": "call_id"},
    "history.set_instructions": {"instructions": "prompt"},
    "llm.tool_result": {"message_id": "msg_id"},
}
_RESULT_NAMES: Final = {"toolCallId": "tool_call_id", "id": "tool_call_id", "output": "result", "content": "result"}
_ENVELOPE: Final = frozenset({"event", "agent_id", "session_id", "call_id"})
"""Never configuration, whether or not the command has a use for them."""
_NULL: Final = b"null"

_objects: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_object_lists: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_strings: Final = msgspec.json.Decoder(str)
_decoders: Final = {tag: msgspec.json.Decoder(type_) for tag, type_ in _TYPES.items()}


def parse(frame: str | bytes) -> AnyCommand | Unknown:
    """Read one frame. Raises `FrameError` (no JSON object) or `BadCommand` (known event, wrong field)."""
    try:
        # As text: what is inside is read later or goes on to others, and must be some then.
        keys = _objects.decode(frame.decode() if isinstance(frame, bytes) else frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FrameError("not a JSON object") from error
    event = _text(keys.get("event"))
    type_ = _TYPES.get(event)
    if type_ is None:
        return Unknown(event)
    try:
        fields = _rename(event, type_, keys)
        if type_ is LlmToolResult:
            fields["results"] = _results(event, keys)
        return _decoders[event].decode(msgspec.json.encode(fields))  # pyright: ignore[reportReturnType]
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadCommand(event, _field_of(error), _text(keys.get("agent_id"))) from error


def _rename(event: str, type_: type[Command], keys: RawConfig) -> dict[str, msgspec.Raw | RawConfig]:
    """Wire keys → the names `type_` knows; what is left over becomes its `config`, if it gathers one."""
    gathers = type_ in _GATHERS_CONFIG
    known = _wire_names(type_)
    older = _OLDER_NAMES.get(event, {})
    fields: dict[str, msgspec.Raw | RawConfig] = {}
    config: RawConfig = {}
    for key, value in keys.items():
        name = key if key in known else older.get(key) or snake(key)
        if name in known and not (gathers and name == "config"):
            if bytes(value) != _NULL and (name == key or name not in keys):
                fields[name] = value
        elif gathers and name not in _ENVELOPE:
            config[key] = value
    fields["event"] = keys["event"]
    if gathers:
        fields["config"] = config
    return fields


def _results(event: str, keys: RawConfig) -> msgspec.Raw:
    """Tool results in one spelling; a single one may lie at the top level of the frame."""
    listed = keys.get("results")
    try:
        results = _object_lists.decode(listed) if listed is not None else [keys]
    except msgspec.DecodeError as error:
        raise BadCommand(event, "results", _text(keys.get("agent_id"))) from error
    renamed = [{_RESULT_NAMES.get(key) or snake(key): value for key, value in one.items()} for one in results]
    return msgspec.Raw(msgspec.json.encode(renamed))


def _wire_names(type_: type[Command]) -> frozenset[str]:
    names = _names.get(type_)
    if names is None:
        names = _names[type_] = frozenset(type_.__struct_encode_fields__)
    return names


_names: Final[dict[type[Command], frozenset[str]]] = {}


def snake(key: str) -> str:
    """`sessionLimits` → `session_limits`."""
    return _HUMP.sub(lambda hump: "_" + hump[0].lower(), key)


_HUMP: Final = re.compile(r"(?<=[a-z0-9])[A-Z]")
_PATH: Final = re.compile(r"at `\$\.([A-Za-z_]+)")
_MISSING: Final = re.compile(r"required field `(\w+)`")


def _field_of(error: Exception) -> str:
    """Which top-level field a decoder's message complains about."""
    found = _PATH.search(str(error)) or _MISSING.search(str(error))
    return found[1] if found else "frame"


def _text(value: msgspec.Raw | None) -> str:
    """The string, or "" for anything else."""
    if value is None:
        return ""
    try:
        return _strings.decode(value)
    except msgspec.DecodeError:
        return ""

"""Reads the `tools` of a configuration: three spellings of one function, as SDKs of every age send them (§5.5)."""

from __future__ import annotations

import re

import msgspec

from wire.config import JsonValue, Tool
from wire.errors import ConfigError
from wire.fields import Fields, json_bytes, plain

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST = 128
"""OpenAI takes no more functions in one request."""


def read_tools(value: JsonValue) -> tuple[Tool, ...]:
    """The tools, in order; of two with one name the later counts. Anything unusable raises `ConfigError`."""
    value = plain(value, "tools")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ConfigError("tools", "must be a list")
    if len(value) > _MOST:
        raise ConfigError("tools", f"must have at most {_MOST} entries")
    tools = [_tool(plain(entry, f"tools[{index}]"), f"tools[{index}]") for index, entry in enumerate(value)]
    return tuple({tool.name: tool for tool in tools}.values())


def _tool(entry: JsonValue, key: str) -> Tool:
    if not isinstance(entry, dict):
        raise ConfigError(key, "must be an object")
    function = plain(entry.get("function"), f"{key}.function")
    if function is None:
        function = entry
    if not isinstance(function, dict):
        raise ConfigError(f"{key}.function", "must be an object")
    if entry.get("type") not in (None, "function"):
        raise ConfigError(f"{key}.type", "must be 'function'")
    read, outer = Fields(key, function), Fields(key, entry)
    name = read.text("name")
    if name is None or not _NAME.fullmatch(name):
        raise ConfigError(f"{key}.name", "must be 1 to 64 letters, digits, '_' or '-'")
    return Tool(
        name=name,
        description=read.text("description") or "",
        parameters=_parameters(function, key),
        ephemeral=read.flag("ephemeral", default=outer.flag("ephemeral", default=False)),
        no_followup=any(
            fields.flag(spelling, default=False)
            for fields in (read, outer)
            for spelling in ("no_followup", "noFollowup")
        ),
    )


def _parameters(function: dict[str, JsonValue], key: str) -> msgspec.Raw:
    # `call.update({tools})` sends the SDK's own object: `_jsonSchema` is the schema, `schema` is something private.
    schema = plain(function.get("_jsonSchema"), f"{key}.parameters")
    if schema is None:
        schema = plain(function.get("parameters"), f"{key}.parameters")
    if schema is None:
        return msgspec.Raw(b'{"type":"object","properties":{}}')
    if not isinstance(schema, dict):
        raise ConfigError(f"{key}.parameters", "must be a JSON schema object")
    return msgspec.Raw(json_bytes(schema, f"{key}.parameters"))

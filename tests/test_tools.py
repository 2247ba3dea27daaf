"""Tool entries: three spellings of one function."""

from __future__ import annotations

import msgspec
import pytest

from wire.config import JsonValue, Tool
from wire.errors import ConfigError
from wire.tools import read_tools

SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"orderId": {"type": "string"}},
    "required": ["orderId"],
}
PRIVATE: dict[str, JsonValue] = {"_def": {"typeName": "ZodObject"}}

SPELLINGS: list[JsonValue] = [
    {"type": "function", "function": {"name": "find", "description": "Find it", "parameters": SCHEMA}},
    {"name": "find", "description": "Find it", "parameters": SCHEMA},
    {"name": "find", "description": "Find it", "_jsonSchema": SCHEMA, "schema": PRIVATE, "parameters": None},
]


def read_one(entry: JsonValue) -> Tool:
    (tool,) = read_tools([entry])
    return tool


@pytest.mark.parametrize("entry", SPELLINGS)
def test_every_spelling_is_the_same_function_and_its_schema_is_untouched(entry: JsonValue) -> None:
    tool = read_one(entry)

    assert (tool.name, tool.description) == ("find", "Find it")
    assert msgspec.json.decode(tool.parameters) == SCHEMA


def test_a_schema_still_in_bytes_is_read() -> None:
    assert msgspec.json.decode(read_tools(msgspec.Raw(msgspec.json.encode(SPELLINGS)))[0].parameters) == SCHEMA


@pytest.mark.parametrize("entry", [{"name": "ping"}, {"type": "function", "function": {"name": "ping"}}])
def test_a_function_without_parameters_takes_none(entry: JsonValue) -> None:
    assert msgspec.json.decode(read_one(entry).parameters) == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "a", "ephemeral": True, "noFollowup": True},
        {"name": "a", "ephemeral": True, "no_followup": True},
        {"type": "function", "ephemeral": True, "no_followup": True, "function": {"name": "a"}},
    ],
)
def test_flags_are_found_in_either_place_and_spelling(entry: JsonValue) -> None:
    tool = read_one(entry)
    assert (tool.ephemeral, tool.no_followup) == (True, True)


def test_of_two_tools_with_one_name_the_later_counts() -> None:
    tools = read_tools([{"name": "a", "description": "1"}, {"name": "b"}, {"name": "a", "description": "2"}])
    assert [(tool.name, tool.description) for tool in tools] == [("a", "2"), ("b", "")]


REFUSED: list[tuple[JsonValue, str]] = [
    ({}, "tools"),
    ("find", "tools"),
    ([{"name": f"t{n}"} for n in range(129)], "tools"),
    ([{"name": "ok"}, "find"], "tools[1]"),
    ([{"name": ""}], "tools[0].name"),
    ([{"name": "has space"}], "tools[0].name"),
    ([{"type": "web_search"}], "tools[0].type"),
    ([{"function": "find"}], "tools[0].function"),
    ([{"name": "a", "parameters": []}], "tools[0].parameters"),
    (msgspec.Raw(b"[{"), "tools"),
]


@pytest.mark.parametrize(("value", "key"), REFUSED)
def test_what_no_model_could_call_is_refused_by_its_key(value: JsonValue, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_tools(value)
    assert caught.value.key == key

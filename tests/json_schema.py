"""Does a JSON value fit a schema of an OpenAPI document? As much of JSON Schema as those documents use."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, cast

Schema = dict[str, Any]

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_KNOWN = {
    "$ref", "additionalProperties", "anyOf", "const", "default", "description", "enum", "items", "maxLength",
    "properties", "required", "title", "type",
}  # fmt: skip


def misfits(value: object, schema: Schema, document: Schema, where: str = "$") -> list[str]:
    """What does not fit, each with its place; raises KeyError for a word of JSON Schema that is not known here."""
    if unknown := schema.keys() - _KNOWN:
        raise KeyError(unknown)
    if "$ref" in schema:
        found: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return misfits(value, found, document, where)
    if "anyOf" in schema:
        tried = [misfits(value, one, document, where) for one in schema["anyOf"]]
        return [] if [] in tried else list(chain.from_iterable(tried))
    if "const" in schema and value != schema["const"]:
        return [f"{where}: {value!r} is not {schema['const']!r}"]
    if "type" in schema and not _TYPES[schema["type"]](value):
        return [f"{where}: {value!r} is no {schema['type']}"]
    if isinstance(value, dict):
        return _object_misfits(cast("dict[str, object]", value), schema, document, where)
    items = cast("list[object]", value) if isinstance(value, list) else []
    wrong: list[str] = []
    for n, one in enumerate(items):
        wrong += misfits(one, schema["items"], document, f"{where}[{n}]")
    return wrong


def _object_misfits(value: dict[str, object], schema: Schema, document: Schema, where: str) -> list[str]:
    properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    wrong = [f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value]
    for name, one in value.items():
        if name in properties:
            wrong += misfits(one, properties[name], document, f"{where}.{name}")
        elif more is False:
            wrong.append(f"{where}.{name} is not described")
        elif isinstance(more, dict):
            wrong += misfits(one, cast("Schema", more), document, f"{where}.{name}")
    return wrong

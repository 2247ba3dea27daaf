"""`/openapi.json`: the routes that programs ask, as they are really answered. Nothing is fetched from elsewhere."""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI

_METHODS = frozenset({"get", "post", "put", "patch", "delete"})


def describe_truly(app: FastAPI) -> None:
    """Take out of the app's document what FastAPI adds and this gateway never answers: its own 422."""
    made = app.openapi

    def document() -> dict[str, Any]:
        whole = made()
        for path in cast("dict[str, dict[str, Any]]", whole.get("paths", {})).values():
            for method in _METHODS & path.keys():
                path[method].get("responses", {}).pop("422", None)
        schemas = whole.get("components", {}).get("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return whole

    app.openapi = document

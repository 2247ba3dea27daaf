"""Ids that the gateway makes."""

from __future__ import annotations

import secrets


def new_id(prefix: str) -> str:
    """An id unlike any other: `prefix_` and twelve hex digits."""
    return f"{prefix}_{secrets.token_hex(6)}"

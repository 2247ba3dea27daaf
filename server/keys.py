"""The server's own API keys: `API_KEYS` taken apart, and the key that is made when none is set."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

DEFAULT_ORGANISATION = "org_main"


class SettingsError(ValueError):
    """The settings cannot be used. One line, safe to print, naming each variable at fault."""


@dataclass(frozen=True, slots=True)
class OrganisationKey:
    """One API key and the organisation it opens."""

    organisation: str
    key: SecretStr


def read_api_keys(value: SecretStr | None) -> tuple[OrganisationKey, ...]:
    """`org_a:pk_1,pk_2`: a key without an organisation belongs to `org_main`. `ValueError` tells which entry is bad."""
    if value is None:
        return ()
    found: dict[str, OrganisationKey] = {}
    entries = [entry.strip() for entry in value.get_secret_value().split(",")]
    for number, entry in enumerate(filter(None, entries), start=1):
        organisation, separator, key = entry.rpartition(":")
        organisation = organisation.strip() if separator else DEFAULT_ORGANISATION
        if not organisation or ":" in organisation or not is_key(key.strip()):
            raise ValueError(f"entry {number} must be 'pk_…' or 'organisation:pk_…'")
        if key.strip() in found:
            raise ValueError(f"entry {number} repeats a key")
        found[key.strip()] = OrganisationKey(organisation, SecretStr(key.strip()))
    if not found:
        raise ValueError("holds no key")
    return tuple(found.values())


def is_key(text: str) -> bool:
    """Whether it can be an API key at all: `pk_…`, at least 8 printable characters without a space."""
    return text.startswith("pk_") and len(text) >= 8 and text.isascii() and text.isprintable() and " " not in text


class StoredKey(NamedTuple):
    """The key of a server that was given none; `created` is true the one time it should be shown."""

    key: SecretStr
    created: bool


def load_or_create_key(data_dir: Path) -> StoredKey:
    """The generated key for `org_main`, kept in `data_dir/api_key` (mode 0600) and made on first use.

    Blocking file access: for the start, not for the event loop. Raises `SettingsError` when the place cannot be used.
    """
    path = data_dir / "api_key"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        created = not path.exists() and _write_once(path, f"pk_{secrets.token_hex(24)}\n")
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"DATA_DIR: cannot keep the API key in {path} ({type(error).__name__})") from None
    if not is_key(key):
        raise SettingsError(f"DATA_DIR: {path} holds no API key; delete it to get a new one")
    return StoredKey(SecretStr(key), created)


def _write_once(path: Path, text: str) -> bool:
    """Create the file whole or not at all; False when another process was first."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True

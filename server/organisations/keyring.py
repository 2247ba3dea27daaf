"""Makes, lists and revokes keys in `API_KEYS_FILE` or in Redis, for the command line: it may block."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from server.auth import PUBLISHABLE, digest_of, redact
from server.keys import SettingsError, load_or_create_key
from server.organisations.entries import (
    BadEntry,
    Document,
    KeyEntry,
    OrganisationEntry,
    is_org_id,
    is_text,
    known_key,
    roll_of,
)
from server.organisations.file import OrganisationsFile
from server.organisations.redis import OrganisationsRedis, RedisUnavailable
from server.organisations.roll import KnownKey
from server.settings import Settings

_MIN_WANTED: Final = 6
"""Fewer characters name a key by accident."""


class KeyringError(Exception):
    """It was not done. One line for the operator, without a secret."""


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key, and the place it is in: `API_KEYS`, `API_KEYS_FILE`, `Redis` or `DATA_DIR`."""

    place: str
    key: KnownKey


class Keyring:
    """The keys that the settings lead to. Methods raise KeyringError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = None if settings.api_keys_file is None else OrganisationsFile(settings.api_keys_file)

    async def make(self, org_id: str, name: str, *, publishable: bool) -> tuple[str, str]:
        """A new key, and where it was written down: in the file, or in Redis where there is no file."""
        if not is_org_id(org_id):
            raise KeyringError("an organisation's id must be letters, digits, '_' or '-', at most 64")
        if not is_text(name):
            raise KeyringError("a key's name must be at most 200 printable characters")
        text = f"{PUBLISHABLE if publishable else 'pk_'}{secrets.token_hex(24)}"
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = KeyEntry(sha256=digest_of(text).hex(), preview=redact(text), name=name, created=created)
        try:
            key = known_key(org_id, entry)
            if self._file is not None:
                with self._changing(self._file) as document:
                    document.setdefault(org_id, OrganisationEntry()).keys.append(entry)
                return text, str(self._file.path)
            async with self._redis() as redis:
                await redis.add(key)
                place = "Redis" if await redis.persists() else "Redis, which keeps it until it restarts (not on disk)"
        except BadEntry as bad:
            raise self._unusable(bad) from None
        return text, place

    async def listed(self, org_id: str = "") -> list[ListedKey]:
        """All keys, of one organisation or of all."""
        known = [ListedKey("API_KEYS", known) for known in self._environment()]
        if self._file is not None:
            known += [ListedKey("API_KEYS_FILE", key) for key in self._in_file(self._file)]
        elif not known:
            known += [ListedKey("DATA_DIR", key) for key in self._generated()]
        if self._settings.redis_url is not None:
            async with self._redis() as redis:
                known += [ListedKey("Redis", key) for key in await redis.keys()]
        return [one for one in known if org_id in ("", one.key.org_id)]

    async def revoke(self, wanted: str) -> ListedKey:
        """Revoke the one key that `wanted` means: itself, its preview, its name, or the beginning of its SHA-256."""
        if not wanted.strip():
            # Keys without a name are not called so.
            raise KeyringError("say which key; `voice-gateway keys list` shows them")
        found = [one for one in await self.listed() if _means(wanted, one.key)]
        if not found:
            raise KeyringError("no key is called that; `voice-gateway keys list` shows them")
        if len({one.key.digest for one in found}) > 1:
            which = ", ".join(f"{one.key.preview} ({one.key.org_id})" for one in found)
            raise KeyringError(f"several keys are called that: {which}; give the key's sha256 (`keys list --json`)")
        for one in found:
            await self._remove(one)
        return found[0]

    async def _remove(self, one: ListedKey) -> None:
        match one.place:
            case "API_KEYS_FILE":
                assert self._file is not None
                with self._changing(self._file) as document:
                    entry = document.get(one.key.org_id, OrganisationEntry())
                    entry.keys = [key for key in entry.keys if _known(one.key.org_id, key).digest != one.key.digest]
            case "Redis":
                async with self._redis() as redis:
                    await redis.remove(one.key.digest)
            case "DATA_DIR":
                path = self._settings.data_dir / "api_key"
                raise KeyringError(f"that key was made by the gateway itself: delete {path} and restart")
            case _:
                raise KeyringError("that key stands in API_KEYS: take it out there and restart the gateway")

    # --- places ---

    def _environment(self) -> list[KnownKey]:
        keys = [(one.organisation, one.key.get_secret_value()) for one in self._settings.organisation_keys]
        return [KnownKey(digest_of(key), org_id, redact(key)) for org_id, key in keys]

    def _generated(self) -> list[KnownKey]:
        if not (self._settings.data_dir / "api_key").exists():
            return []
        try:
            key = load_or_create_key(self._settings.data_dir).key.get_secret_value()
        except SettingsError as error:
            raise KeyringError(str(error)) from None
        return [KnownKey(digest_of(key), "org_main", redact(key))]

    def _in_file(self, file: OrganisationsFile) -> tuple[KnownKey, ...]:
        if not file.path.exists():
            return ()
        try:
            return roll_of(file.document()).keys
        except BadEntry as bad:
            raise self._unusable(bad) from None

    @contextmanager
    def _changing(self, file: OrganisationsFile) -> Generator[Document]:
        """The file's document, written back if nothing went wrong. One program at a time."""
        folder = file.path.resolve().parent
        with _alone(folder):
            try:
                document = file.document() if file.path.exists() else {}
                roll_of(document)
                yield document
                roll_of(document)
                file.write(document)
            except BadEntry as bad:
                raise self._unusable(bad) from None

    @asynccontextmanager
    async def _redis(self) -> AsyncGenerator[OrganisationsRedis]:
        url = self._settings.redis_url
        if url is None:
            raise KeyringError("there is no place for keys: set API_KEYS_FILE (a file to be made) or REDIS_URL")
        redis = OrganisationsRedis(url.get_secret_value())
        try:
            yield redis
        except RedisUnavailable as error:
            raise KeyringError(f"REDIS_URL: Redis does not answer ({error})") from None
        finally:
            await redis.aclose()

    def _unusable(self, bad: BadEntry) -> KeyringError:
        return KeyringError(f"API_KEYS_FILE: {self._settings.api_keys_file}: {bad}")


def _known(org_id: str, entry: str | KeyEntry) -> KnownKey:
    return known_key(org_id, entry if isinstance(entry, KeyEntry) else KeyEntry(key=entry))


def _means(wanted: str, key: KnownKey) -> bool:
    by_digest = len(wanted) >= _MIN_WANTED and key.digest.hex().startswith(wanted.lower())
    return digest_of(wanted) == key.digest or by_digest or (wanted != "pk_…" and wanted in (key.preview, key.name))


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Wait until no other program changes files in that folder by these means."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise KeyringError(f"API_KEYS_FILE: {folder}: {error.strerror or type(error).__name__}") from None
    try:
        with contextlib.suppress(OSError):  # a file system that knows no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

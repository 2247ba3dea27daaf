"""API keys: whose they are, how they are compared, and how little of them is ever shown (behaviour §2)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final

DEFAULT_ORG = "org_main"
PUBLISHABLE: Final = "pk_publishable_"
"""How keys for web pages begin."""


class Source(IntEnum):
    """Where a key was read. Of two that say different things about one key, the first is right."""

    ENVIRONMENT = 0
    FILE = 1
    REDIS = 2


class Keys:
    """The keys of all organisations, kept as SHA-256 digests and compared in constant time.

    What was given at the start stays; the other sources are learnt again whenever they change.
    """

    def __init__(self, keys: Iterable[tuple[str, str]]) -> None:
        """Take pairs of (organisation, key)."""
        self._known: dict[Source, tuple[tuple[bytes, str], ...]] = {}
        self._known[Source.ENVIRONMENT] = tuple((digest_of(key), org_id) for org_id, key in keys)
        self._listeners: list[Callable[[], None]] = []
        self.awaited: set[Source] = set()
        """Sources that could not be read yet: a key that is not known may be in one of them."""

    def __len__(self) -> int:
        return sum(len(pairs) for pairs in self._known.values())

    def org_of(self, key: str) -> str | None:
        """The organisation of a secret key, None for anything else.

        A publishable key is seen by every browser, so it opens nothing here.
        """
        return None if key.startswith(PUBLISHABLE) else self.owner(digest_of(key))

    def publishable_org(self, key: str) -> str | None:
        """The organisation that a publishable key names, None for anything else. It proves nothing of who shows it."""
        return self.owner(digest_of(key)) if key.startswith(PUBLISHABLE) else None

    def may_be_unread(self, key: str) -> bool:
        """Whether a secret key that is not known may stand where nobody could look yet."""
        return bool(self.awaited) and not key.startswith(PUBLISHABLE)

    def owner(self, digest: bytes) -> str | None:
        """The organisation of the key with that digest. Takes the same time whatever is found, and where."""
        found: str | None = None
        for source in Source:
            for known, org_id in self._known.get(source, ()):
                if hmac.compare_digest(known, digest) and found is None:
                    found = org_id
        return found

    def learn(self, source: Source, digests: Iterable[tuple[bytes, str]]) -> None:
        """These pairs of (digest, organisation), and no others, are in that source now."""
        pairs = tuple(digests)
        self.awaited.discard(source)
        if pairs == self._known.get(source, ()):
            return
        self._known[source] = pairs
        for listener in self._listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call it after keys were added or revoked. It must not raise."""
        self._listeners.append(listener)


def redact(key: str) -> str:
    """What a log may show: `pk_` + four + `…` + four; of a short key nothing. `none` where none was sent."""
    if not key:
        return "none"
    body = key.removeprefix("pk_")
    return f"pk_{body[:4]}…{body[-4:]}" if len(body) >= 16 else "pk_…"


def digest_of(key: str) -> bytes:
    """What is kept of a key: its SHA-256."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

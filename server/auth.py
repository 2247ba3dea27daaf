"""API keys: whose they are, how they are compared, and how little of them is ever shown (behaviour §2)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

DEFAULT_ORG = "org_main"
_PUBLISHABLE = "pk_publishable_"


class Keys:
    """The keys of all organisations, kept as SHA-256 digests and compared in constant time."""

    def __init__(self, keys: Iterable[tuple[str, str]]) -> None:
        """Take pairs of (organisation, key)."""
        self._digests = tuple((_digest(key), org_id) for org_id, key in keys)

    def __len__(self) -> int:
        return len(self._digests)

    def org_of(self, key: str) -> str | None:
        """The organisation of a secret key, None for anything else.

        A publishable key is seen by every browser, so it opens nothing here.
        """
        if key.startswith(_PUBLISHABLE):
            return None
        digest = _digest(key)
        found: str | None = None
        for known, org_id in self._digests:
            if hmac.compare_digest(known, digest):
                found = org_id
        return found


def redact(key: str) -> str:
    """What a log may show: `pk_` + four + `…` + four; of a short key nothing."""
    body = key.removeprefix("pk_")
    return f"pk_{body[:4]}…{body[-4:]}" if len(body) >= 16 else "pk_…"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

"""Who is asking: the organisation of an API key, and the address a request comes from (browser §1.1)."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_address
from typing import Final

import structlog
from starlette.requests import HTTPConnection

from pipelines.clock import Clock
from server.api.errors import STORE_RETRY_S, ApiError, too_many
from server.auth import Keys, redact
from server.throttle import Failures

log = structlog.get_logger(__name__)

_BAD_KEYS_BURST: Final = 5
_BAD_KEYS_RATE: Final = 0.1
_PENALTY_S: Final = 1.5
"""How long an answer is held for those who keep coming with bad keys, as on `/client`."""
_MAX_HELD: Final = 256
"""Answers held at once; who comes beyond that is told to go away."""
_IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that one subscriber cannot choose himself."""


class Access:
    """Tells whose a request is. One for all routes, so that failures are counted together."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._failures = Failures(_BAD_KEYS_RATE, _BAD_KEYS_BURST)
        self._held = 0

    async def org(self, connection: HTTPConnection) -> str:
        """The organisation whose secret key came with the request. Raises `ApiError` 401, 429."""
        keys = keys_shown(connection)
        if not keys:
            raise ApiError(401, "UNAUTHORIZED", "An API key is required: Authorization: Bearer pk_…")
        return await self.org_of(keys, peer_of(connection))

    async def org_of(self, keys: frozenset[str], peer: str) -> str:
        """The organisation that the shown key opens. Several different ones open nothing.

        Also for keys that came another way than in a header. Raises `ApiError` 401, 429 after a while of failures,
        503 while keys cannot be looked up.
        """
        key = next(iter(keys)) if len(keys) == 1 else ""
        org_id = self._keys.org_of(key)
        if org_id is None:
            if self._keys.may_be_unread(key):
                text = "This key cannot be looked up now; try again"
                raise ApiError(503, "STORE_UNAVAILABLE", text, {"Retry-After": str(STORE_RETRY_S)})
            await self._bad_key(key, peer)
            raise ApiError(401, "UNAUTHORIZED", "Invalid API key", {"WWW-Authenticate": "Bearer"})
        return org_id

    def org_if_shown(self, connection: HTTPConnection) -> str:
        """For routes that need no key: the organisation of a good one, "" for anything else, which is no offence."""
        keys = keys_shown(connection)
        return (self._keys.org_of(next(iter(keys))) or "") if len(keys) == 1 else ""

    def publishable_org(self, keys: frozenset[str]) -> str | None:
        """The organisation that the one shown key names if it is a publishable one: no more than a hint."""
        return self._keys.publishable_org(next(iter(keys))) if len(keys) == 1 else None

    async def _bad_key(self, key: str, peer: str) -> None:
        now = self._clock.now()
        by_peer = self._failures.too_many("peer " + network_of(peer), now)
        by_key = self._failures.too_many("key " + key[:12], now)
        if not (by_peer or by_key):
            log.warning("bad_key", peer=peer, key=redact(key))
            return
        if self._held >= _MAX_HELD:
            raise too_many("Too many requests with invalid API keys", _PENALTY_S)
        self._held += 1
        try:
            await asyncio.sleep(_PENALTY_S)
        finally:
            self._held -= 1


def keys_shown(connection: HTTPConnection) -> frozenset[str]:
    """Every API key in the headers `Authorization: Bearer` and `X-API-Key`, an empty one included.

    Other schemes of `Authorization` are for somebody else on the way, such as a proxy with a password.
    """
    shown: set[str] = {text.strip() for text in connection.headers.getlist("x-api-key")}
    for text in connection.headers.getlist("authorization"):
        scheme, _, key = text.strip().partition(" ")
        if scheme.lower() == "bearer":
            shown.add(key.strip())
    return frozenset(shown)


def peer_of(connection: HTTPConnection) -> str:
    """The address the request comes from; "" when there is none.

    Behind a trusted proxy (`FORWARDED_ALLOW_IPS`) that is what the proxy says, which the web server has looked at.
    """
    return connection.client.host if connection.client is not None else ""


def network_of(peer: str) -> str:
    """What limits count: an IPv4 address, or the network of an IPv6 one, of which anybody has 2^64 to himself."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> (128 - _IPV6_NETWORK) << (128 - _IPV6_NETWORK)))
    return str(address)

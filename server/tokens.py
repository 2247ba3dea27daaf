"""Tokens that open one session of one agent in a browser: made for whoever may, used once (browser §1.3).

A token is random text; what it stands for stays here (in the store, under the token's hash), so that a page can neither
read nor change it.
"""

from __future__ import annotations

import secrets
import string
from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal

import msgspec
import structlog

from pipelines.clock import Clock
from server.agents.agent import slugify
from server.api.errors import ApiError
from server.origins import parse_origin
from server.store.base import AgentKey, Store, token_digest

log = structlog.get_logger(__name__)

TokenChannel = Literal["webrtc", "chat"]
Metadata = dict[str, msgspec.Raw]

TOKEN_LIFE_S: Final = 60
"""For connecting; the session goes on."""
_PREFIXES: Final[dict[TokenChannel, str]] = {"webrtc": "wrtc_", "chat": "cht_"}
_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 32
"""Of the random part: 190 bits."""


class TokenRefused(ApiError):
    """A token is not made, or opens nothing."""


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token and how many seconds it lives."""

    token: str = field(repr=False)
    expires_in: int = TOKEN_LIFE_S


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token opened: a session of this agent, with metadata that its maker sealed in."""

    agent: AgentKey
    metadata: Metadata = field(repr=False)


class _Sealed(msgspec.Struct, frozen=True, omit_defaults=True):
    channel: str
    org: str
    agent: str
    metadata: Metadata = {}
    origin: str = ""


_sealed: Final = msgspec.json.Decoder(_Sealed)


class Tokens:
    """All tokens of this node; what they stand for is in the store, where every node finds it.

    Of one agent at most `per_agent` unused tokens are out at a time, as far as this node made them and knows of their
    use; 0 is no limit.
    """

    def __init__(self, store: Store, clock: Clock, per_agent: int) -> None:
        self._store = store
        self._clock = clock
        self._per_agent = per_agent
        self._unused: dict[str, tuple[AgentKey, float]] = {}
        """By hash, in the order in which they run out."""
        self._of_agent: Counter[AgentKey] = Counter()

    def __len__(self) -> int:
        return len(self._unused)

    async def mint(self, channel: TokenChannel, key: AgentKey, metadata: Metadata, origin: str | None) -> Minted:
        """A token for one session of that agent, bound to `origin` if there is one.

        Raises `TokenRefused` 429 when too many are unused, `StoreUnavailable`.
        """
        now = self._clock.now()
        self._forget_expired(now)
        if self._per_agent and self._of_agent[key] >= self._per_agent:
            first = next(expires for agent, expires in self._unused.values() if agent == key)
            raise TokenRefused(429, "RATE_LIMITED", "Too many unused tokens", {"Retry-After": str(ceil(first - now))})
        token = _PREFIXES[channel] + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        digest = token_digest(token)
        self._unused[digest] = (key, now + TOKEN_LIFE_S)
        self._of_agent[key] += 1
        sealed = _Sealed(channel, key.org_id, key.slug, metadata, origin or "")
        try:
            await self._store.put_token(token, msgspec.json.encode(sealed), TOKEN_LIFE_S)
        except BaseException:
            self._forget(digest)
            raise
        log.info("token_minted", channel=channel, org=key.org_id, agent=key.slug, origin=origin or "")
        return Minted(token)

    async def consume(self, channel: TokenChannel, token: str, origin: str | None, agent_id: str | None) -> Grant:
        """Open a session with a token: afterwards it is used.

        `origin` is the request's `Origin` as it came, `agent_id` what the request says it wants, None where it says
        nothing. Raises `TokenRefused` 401 (no such token, or not for this channel), 403 (not from there, not for that
        agent), both leaving it unused; `StoreUnavailable`.
        """
        if not token.startswith(_PREFIXES[channel]) or len(token) != len(_PREFIXES[channel]) + _LENGTH:
            raise self._unknown(channel)
        value = await self._store.see_token(token)
        if value is None:
            raise self._unknown(channel)
        sealed = _sealed.decode(value)
        if sealed.channel != channel:
            raise self._unknown(channel)
        if agent_id is not None and slugify(agent_id) != sealed.agent:
            raise self._refused(sealed, "FORBIDDEN", "This token is for another agent")
        if sealed.origin and origin is not None and str(parse_origin(origin)) != sealed.origin:
            raise self._refused(sealed, "ORIGIN_NOT_ALLOWED", "This token was made for a page of another origin")
        if await self._store.take_token(token) is None:
            raise self._unknown(channel)
        self._forget(token_digest(token))
        return Grant(AgentKey(sealed.org, sealed.agent), sealed.metadata)

    def _unknown(self, channel: TokenChannel) -> TokenRefused:
        log.info("token_refused", channel=channel, code="UNAUTHORIZED")
        return TokenRefused(401, "UNAUTHORIZED", "This token is unknown, used or expired")

    def _refused(self, sealed: _Sealed, code: str, why: str) -> TokenRefused:
        log.warning("token_refused", channel=sealed.channel, org=sealed.org, agent=sealed.agent, code=code)
        return TokenRefused(403, code, why)

    def _forget_expired(self, now: float) -> None:
        while self._unused:
            digest, (_, expires) = next(iter(self._unused.items()))
            if expires > now:
                return
            self._forget(digest)

    def _forget(self, digest: str) -> None:
        known = self._unused.pop(digest, None)
        if known is None:
            return
        self._of_agent[known[0]] -= 1
        if not self._of_agent[known[0]]:
            del self._of_agent[known[0]]

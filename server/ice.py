"""Which helpers a page may use to reach the gateway: STUN servers, and TURN servers with a password for ten minutes.

Anybody may ask, so a lasting password would be public. TURN servers that share a secret with us check one that we make
up for each asker: the name says until when it holds, the password is the name under the secret (coturn's
`use-auth-secret`, draft-uberti-behave-turn-rest-00).
"""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pipelines.clock import Clock

TURN_SECONDS: Final = 600


class IceServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry as browsers read it. `urls` is always a list: some apps cannot read anything else."""

    urls: list[str]
    username: str = ""
    credential: str = ""


@dataclass(frozen=True, slots=True)
class IceServers:
    """What the operator has. Without a secret TURN servers are not offered."""

    clock: Clock
    stun: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    turn_secret: str = field(default="", repr=False)

    def offered(self) -> list[IceServer]:
        """The list for one asker."""
        servers = [IceServer([url]) for url in self.stun]
        if self.turn and self.turn_secret:
            name = f"{int(self.clock.wall()) + TURN_SECONDS}:{secrets.token_hex(4)}"
            password = hmac.digest(self.turn_secret.encode(), name.encode(), "sha1")
            servers.append(IceServer(list(self.turn), name, base64.b64encode(password).decode()))
        return servers

    @property
    def secret(self) -> bool:
        """True when an answer holds a password, and must not be kept by anybody on the way."""
        return bool(self.turn and self.turn_secret)


def read_urls(text: str | None, scheme: str) -> tuple[str, ...]:
    """A comma list of `stun:` or `turn:` addresses (RFC 7064, RFC 7065), secure forms included. Raises ValueError."""
    urls = tuple(url.strip() for url in (text or "").split(",") if url.strip())
    for url in urls:
        kind, colon, rest = url.partition(":")
        if kind.lower() not in (scheme, scheme + "s") or not colon or not rest or rest.startswith("//"):
            raise ValueError(f"must be {scheme}: addresses such as {scheme}:{scheme}.example.com:3478")
    return urls


def read_ports(text: str | None) -> tuple[int, int] | None:
    """A range of UDP ports, `40000-40199`; None for any. Raises ValueError."""
    if text is None:
        return None
    low, dash, high = (part.strip() for part in text.partition("-"))
    if not (low.isdecimal() and dash and high.isdecimal() and 1024 <= int(low) <= int(high) <= 65535):
        raise ValueError("must be a range of ports such as 40000-40199")
    return int(low), int(high)

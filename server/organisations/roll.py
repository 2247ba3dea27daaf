"""The organisations that one source lists, and their keys. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

VENDORS: Final = ("deepgram", "elevenlabs", "cartesia", "gladia", "openai", "mistral")
"""Providers for which an organisation may have a key of its own, as the wire names them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of everything at one time, in one gateway process. 0 means no limit of its own."""

    connections: int = 0
    """Agent sockets."""
    agents: int = 0
    """Agents, those included that may come back any moment."""
    calls: int = 0
    """Phone and browser calls, those included that were answered and have no audio yet."""
    chats: int = 0
    """Text sessions."""


UNLIMITED: Final = Limits()


@dataclass(frozen=True, slots=True)
class TwilioAccess:
    """A carrier account. `account_sid` is empty where only the token is known: enough to verify, not to ask."""

    account_sid: str
    auth_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Organisation:
    """One organisation. Its secrets never leave the server."""

    org_id: str
    name: str = ""
    limits: Limits = UNLIMITED
    credentials: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """API keys of its own, by vendor (`VENDORS`)."""
    twilio: TwilioAccess | None = None
    """A carrier account of its own."""


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key as it is kept: nobody can use what is written here."""

    digest: bytes = field(repr=False)
    org_id: str
    preview: str
    """`pk_` + four + `…` + four."""
    name: str = ""
    created: str = ""
    """When it was made (ISO 8601, UTC); empty where nobody wrote it down."""


@dataclass(frozen=True, slots=True)
class Roll:
    """All that one source says."""

    organisations: Mapping[str, Organisation] = field(default_factory=dict[str, Organisation])
    keys: tuple[KnownKey, ...] = ()
